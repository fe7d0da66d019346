// SPDX-License-Identifier: Apache-2.0

// Package named keeps what the steps of a container have written, under the name
// that its user gave it.
//
// # Layout
//
// A container is one file with an ext4 file system of limited size, and what is
// known about it, in a directory of the node that is root's:
//
//	DIR/NODE/UID/KEY.ext4    the file system, root's alone
//	DIR/NODE/UID/KEY.json    its [State]; the container exists if this does
//	DIR/NODE/UID/KEY.lock    locked while a step starts in it
//	DIR/NODE/UID/list/KEY    a copy of the state, in a directory of the user's
//	DIR/.lock                locked while one is made that has no size yet
//
// KEY is JOB:NAME, or user:NAME where names last longer than jobs. Different
// users, and what different slurmds of a machine call a node, never meet.
//
// # Whom it trusts
//
// The user owns nothing of this but the directory "list", in which root looks at
// names only, without following links: a name that is gone there says that the
// container is to be removed. So it takes no privilege to remove one. What the
// user writes in the container, whatever owners, links and names that has, is in
// the file system, which the kernel mounts and nobody walks through.
//
// A file may be removed while it is mounted: what runs in it goes on, and the
// room is free afterwards. docs/decisions/0008-named-containers.md says why it is
// made this way.
package named

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// State is what is known of a container that exists.
type State struct {
	// Image is the image in its canonical form, by digest or absolute path, and
	// Stamp what identifies the content of a file ([userfile.Stamp]).
	Image string `json:"image"`
	Stamp string `json:"stamp,omitempty"`
	// Created is when the container was made, Boot and Restart which run of the
	// node and of the job it belongs to.
	Created time.Time `json:"created"`
	Boot    string    `json:"boot"`
	Restart uint32    `json:"restart,omitempty"`
}

// Container is a container that is locked: no other step starts in it, and it is
// not removed. It need not exist.
type Container struct {
	site config.Named
	want request.Named
	user identity.User
	path string // of its files, without their suffixes
	lock *os.File
}

const (
	suffixData, suffixState, suffixLock = ".ext4", ".json", ".lock"
	// suffixNew follows suffixState before the state is complete.
	suffixNew = ".new"
	// list is the user's directory of names.
	list = "list"
	// scopeUser takes the place of the job in names of the user's scope.
	scopeUser = "user"
)

// key returns KEY.
func key(job uint32, name string) string {
	if job == 0 {
		return scopeUser + ":" + name
	}
	return strconv.FormatUint(uint64(job), 10) + ":" + name
}

// nodeDir returns the directory of a node.
func nodeDir(site config.Named, node string) (string, error) {
	if node == "" || node[0] == '.' || strings.Contains(node, "/") {
		return "", fmt.Errorf("internal error: node %q", node)
	}
	return filepath.Join(site.Directory, node), nil
}

// Open waits until no other step starts in the container, and locks it.
func Open(site config.Named, want request.Named, user identity.User) (*Container, error) {
	dir, err := nodeDir(site, want.Node)
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, strconv.FormatUint(uint64(user.UID), 10))
	c := &Container{site: site, want: want, user: user, path: filepath.Join(dir, key(want.Job, want.Name))}
	notes, err := forgetNone(want.Node)
	if err != nil {
		return nil, fmt.Errorf("open container %s: %w", want.Name, err)
	}
	defer notes.Close()
	for c.lock == nil {
		err := c.makeDirectories(dir)
		if err == nil {
			c.lock, err = lockFile(c.path+suffixLock, 0)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the job's end removed it
			return nil, fmt.Errorf("open container %s: %w", want.Name, err)
		}
	}
	return c, nil
}

// makeDirectories makes what is missing on the way to the container. Users may
// pass, to look at what is theirs.
func (c *Container) makeDirectories(dir string) error {
	const hint = "named.directory of the site configuration must be root's alone, with all above it: remove it, and make it when the node starts"
	if err := trust.MakeAll(filepath.Dir(dir), 0o755); err != nil {
		return fault.WithHint(err, hint)
	}
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := trust.Check(dir); err != nil {
		return fault.WithHint(err, hint)
	}
	names := filepath.Join(dir, list)
	err := os.Mkdir(names, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Lchown(names, int(c.user.UID), int(c.user.GID))
	}
	return err
}

// lockFile locks a file that it makes if it is missing, and returns nil if the
// file was removed meanwhile. With [unix.LOCK_NB] it does not wait.
func lockFile(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = safefile.Lock(f, unix.LOCK_EX|flags)
	var locked, there unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &locked)
	}
	if err == nil && (unix.Lstat(path, &there) != nil || there.Ino != locked.Ino) {
		return nil, f.Close()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Release lets others have the container.
func (c *Container) Release() error { return c.lock.Close() }

// State returns the state of the container and whether it exists. What is left of
// one that should not exist any more is removed.
func (c *Container) State() (State, bool, error) {
	s, err := readState(c.path)
	if err == nil && c.isCurrent(s) {
		return s, true, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return State{}, false, fmt.Errorf("open container %s: %w", c.want.Name, err)
	}
	return State{}, false, c.remove()
}

// maxState limits the size in bytes of a file with a state.
const maxState = 1 << 20

func readState(path string) (State, error) {
	var s State
	text, err := budget.File(path+suffixState, maxState)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	return s, err
}

// isCurrent tells whether the container was neither removed by its user nor left
// by a run of the job that has ended.
func (c *Container) isCurrent(s State) bool {
	if isListed(c.path) {
		return c.want.Job == 0 || s.Restart == c.want.Restart && s.Boot == boot()
	}
	return false
}

// boot identifies the time since the node was started (random(4)).
func boot() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // empty is always the same
	return strings.TrimSpace(string(text))
}

// Make makes the container.
func (c *Container) Make(ctx context.Context, s State) error {
	if err := c.make(ctx, s); err != nil {
		return errors.Join(fmt.Errorf("make container %s: %w", c.want.Name, c.explain(err)), c.remove())
	}
	return nil
}

func (c *Container) make(ctx context.Context, s State) error {
	if err := c.makeFileSystem(ctx); err != nil {
		return err
	}
	s.Created, s.Boot, s.Restart = time.Now().UTC().Truncate(time.Second), boot(), c.want.Restart
	text, err := json.Marshal(s)
	if err == nil {
		err = c.addToList(text)
	}
	if err != nil {
		return err
	}
	state := c.path + suffixState
	return safefile.Replace(state, text, 0o600, filepath.Base(state)+suffixNew)
}

// addToList adds the name to the user's directory, as the user, who may have left
// anything there.
func (c *Container) addToList(text []byte) error {
	// As root: the user need not see all of the way to it.
	dir, err := openList(c.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = c.user.Do(func() error {
		const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
		fd, err := unix.Openat(int(dir.Fd()), filepath.Base(c.path), flags, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), list)
		_, err = f.Write(text)
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return fault.WithHint(fmt.Errorf("add it to your list of containers: %w", err), "look at what is in "+filepath.Join(filepath.Dir(c.path), list))
	}
	return nil
}

// makeFileSystem makes a sparse file with an empty ext4. Tables are not written,
// since what a new file does not have reads as zero.
func (c *Container) makeFileSystem(ctx context.Context) error {
	f, err := os.OpenFile(c.path+suffixData, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(c.reserve(f), f.Close()); err != nil {
		return err
	}
	err = command.Run(ctx, command.Cmd{
		Path: c.site.Mke2fs,
		Args: []string{"-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0", c.path + suffixData},
	})
	if errors.Is(err, fs.ErrNotExist) {
		return fault.WithHint(fmt.Errorf("%s is not installed", c.site.Mke2fs), "an administrator installs e2fsprogs, or sets named.mke2fs in the site configuration")
	}
	return err
}

// explain says so where the disk is full, which mke2fs does not.
func (c *Container) explain(err error) error {
	if unix.Access(c.path+suffixLock, unix.F_OK) != nil || !c.full() {
		return err
	}
	return fault.WithHint(fmt.Errorf("no space left in %s on this node", c.site.Directory),
		`remove containers that you do not need ("brolga containers"), or tell the administrator`)
}

func (c *Container) full() bool {
	var st unix.Statfs_t
	return unix.Statfs(c.site.Directory, &st) == nil && st.Bavail*uint64(st.Bsize) < spare
}

// File opens the file system of a container that exists, and notes that it is
// used.
func (c *Container) File() (*os.File, error) {
	if c.full() {
		return nil, c.explain(nil)
	}
	now := time.Now()
	if err := os.Chtimes(c.path+suffixState, now, now); err != nil {
		return nil, err
	}
	return os.OpenFile(c.path+suffixData, os.O_RDWR|unix.O_NOFOLLOW, 0)
}

func (c *Container) remove() error { return errors.Join(removeFiles(c.path), unlist(c.path)) }

// removeFiles removes the files of a container but its lock, the one that makes it
// exist first.
func removeFiles(path string) error {
	var errs []error
	paths, _ := filepath.Glob(path + suffixState + suffixNew + "*") // of one who was killed
	for _, p := range append(paths, path+suffixState, path+suffixData) {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
