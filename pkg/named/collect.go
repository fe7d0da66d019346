// SPDX-License-Identifier: Apache-2.0

package named

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/regular"
)

// Limits say what [Collect] removes besides what nobody can use any more.
type Limits struct {
	// Ended is a job that has ended on the node, or 0.
	Ended uint32
	// Unused is for how long nobody used a container of the user's scope that is
	// removed; 0 removes none for that.
	Unused time.Duration
	// MaxSize is how much those that are left may have in all, or -1. The ones that
	// nobody used for the longest time go first.
	MaxSize int64
	// Jobs returns the jobs that have not ended on the node; nil does not ask.
	Jobs func() (map[uint32]bool, error)
	// InUse tells whether a container runs; such a one is not removed for its age
	// or its size.
	InUse func(*os.File) (bool, error)
	// DryRun removes nothing.
	DryRun bool
	// Note, if set, is told what stays in a user's list, which is the user's to remove.
	Note func(line string)
}

// asked is how often Slurm is asked about a job.
const asked = time.Hour

// Collect removes, on the node, the containers of the job that has ended, those
// that their users have removed from the list, those of jobs that ended while
// nobody could remove them, and what the limits say. A container in which a step
// starts is left alone. Identity: root.
func Collect(site config.Named, node string, limits Limits, tell func(expire.Removed)) error {
	dir, err := nodeDir(site, node)
	if err != nil {
		return err
	}
	users, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	c := collector{limits: limits, tell: tell}
	var kept []found
	var errs []error
	for _, user := range users {
		all, err := userContainers(filepath.Join(dir, user.Name()))
		errs = append(errs, err)
		for _, f := range all {
			stays, err := c.judge(f)
			errs = append(errs, err)
			if stays && f.job == 0 {
				kept = append(kept, f)
			}
		}
	}
	return errors.Join(append(errs, c.shrink(kept))...)
}

// found is a container, or what is left of one.
type found struct {
	path   string // without suffix
	job    uint32 // 0 is the user's scope
	name   string
	state  State
	exists bool
	used   time.Time
	size   int64 // that it takes on the disk
}

// userContainers returns the containers of one user.
func userContainers(dir string) ([]found, error) {
	locks, err := filepath.Glob(filepath.Join(dir, "*"+suffixLock)) // a pattern of ours
	var all []found
	for _, lock := range locks {
		path := strings.TrimSuffix(lock, suffixLock)
		if f, ok := parseKey(filepath.Base(path)); ok {
			f.path = path
			f.look()
			all = append(all, f)
		}
	}
	return all, err
}

// parseKey is the opposite of key.
func parseKey(k string) (f found, ok bool) {
	scope, name, ok := strings.Cut(k, ":")
	f.name = name
	if !ok || scope == scopeUser {
		return f, ok
	}
	job, err := strconv.ParseUint(scope, 10, 32)
	f.job = uint32(job)
	return f, err == nil && job != 0
}

// look fills in what the files say.
func (f *found) look() {
	var st unix.Stat_t
	if unix.Lstat(f.path+suffixData, &st) == nil {
		f.size = st.Blocks * 512
	}
	info, err := os.Lstat(f.path + suffixState)
	if err != nil {
		return
	}
	f.used = info.ModTime()
	f.state, err = readState(f.path)
	f.exists = err == nil
}

type collector struct {
	limits Limits
	tell   func(expire.Removed)
	alive  map[uint32]bool // jobs, once they were asked for
}

// judge removes a container that is of no use, and tells whether it stays.
func (c *collector) judge(f found) (stays bool, err error) {
	lock, err := lockFile(f.path+suffixLock, unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) && f.job != 0 && f.job == c.limits.Ended {
		// Whoever has it is being killed. It removes nothing that others use.
		return false, c.remove(f)
	}
	if lock == nil || err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return true, err
	}
	defer lock.Close()
	f.look()
	useless, err := c.isUseless(f)
	if err != nil || !useless {
		return true, err
	}
	return false, c.remove(f)
}

func (c *collector) isUseless(f found) (bool, error) {
	switch {
	case !f.exists, !isListed(f.path):
		return true, nil
	case f.job == 0:
		return c.limits.Unused > 0 && time.Since(f.used) > c.limits.Unused && !c.inUse(f), nil
	case f.job == c.limits.Ended, f.state.Boot != boot():
		return true, nil
	}
	return c.hasEnded(f)
}

// hasEnded asks Slurm about a job, but not all the time. When a lock was made or
// its job was asked about is the lock's time.
func (c *collector) hasEnded(f found) (bool, error) {
	lock := f.path + suffixLock
	if info, err := os.Lstat(lock); c.limits.Jobs == nil || err != nil || time.Since(info.ModTime()) < asked && c.limits.Ended != 0 {
		return false, err
	}
	if c.alive == nil {
		var err error
		if c.alive, err = c.limits.Jobs(); err != nil {
			return false, err
		}
	}
	now := time.Now()
	return !c.alive[f.job], os.Chtimes(lock, now, now)
}

func (c *collector) inUse(f found) bool {
	file, err := os.OpenFile(f.path+suffixData, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil || c.limits.InUse == nil {
		return false
	}
	defer file.Close()
	used, err := c.limits.InUse(file)
	return used || err != nil
}

func (c *collector) remove(f found) error {
	if c.tell != nil {
		c.tell(expire.Removed{What: "container", Name: f.name, Size: f.size})
	}
	if c.limits.DryRun {
		return nil
	}
	err := removeFiles(f.path)
	// The list is the user's, and may have anything of that name. It must not keep the
	// rest of the container.
	if left := unlist(f.path); left != nil && c.limits.Note != nil {
		c.limits.Note(left.Error())
	}
	if err != nil {
		return err
	}
	if err = os.Remove(f.path + suffixLock); errors.Is(err, fs.ErrNotExist) { // by another one
		return nil
	}
	return err
}

// shrink removes containers of the user's scope until the rest is small enough.
func (c *collector) shrink(kept []found) error {
	if c.limits.MaxSize < 0 {
		return nil
	}
	var total int64
	for _, f := range kept {
		total += f.size
	}
	slices.SortFunc(kept, func(a, b found) int { return a.used.Compare(b.used) })
	var errs []error
	for _, f := range kept {
		if total <= c.limits.MaxSize {
			break
		}
		if c.inUse(f) {
			continue
		}
		lock, err := lockFile(f.path+suffixLock, unix.LOCK_NB)
		if lock == nil {
			if !errors.Is(err, unix.EWOULDBLOCK) {
				errs = append(errs, err)
			}
			continue
		}
		total -= f.size
		errs = append(errs, c.remove(f), lock.Close())
	}
	return errors.Join(errs...)
}

// Jobs asks Slurm which jobs have not ended on a node. Slurm's configuration is
// found by the variable in env.
func Jobs(ctx context.Context, site config.Named, node string, env []string) (map[uint32]bool, error) {
	var out bytes.Buffer
	err := command.Run(ctx, command.Cmd{
		Path: site.Squeue,
		Args: []string{"--noheader", "--format=%A", "--nodelist=" + node, "--states=RUNNING,SUSPENDED,COMPLETING,CONFIGURING,STOPPED,SIGNALING,STAGE_OUT,RESIZING"},
		Env:  env, Stdout: &out,
	})
	if err != nil {
		return nil, fmt.Errorf("ask Slurm for the jobs of %s: %w", node, err)
	}
	jobs := map[uint32]bool{}
	for _, field := range strings.Fields(out.String()) {
		job, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("ask Slurm for the jobs of %s: squeue printed %q", node, field)
		}
		jobs[uint32(job)] = true
	}
	return jobs, nil
}

// Listed is a container as its user sees it.
type Listed struct {
	Name string `json:"name"`
	Node string `json:"node"`
	// Job is the job it belongs to; 0 is all of the user's.
	Job     uint32    `json:"job,omitempty"`
	Image   string    `json:"image"`
	Size    int64     `json:"size"` // bytes on the disk
	Created time.Time `json:"created"`
	Used    time.Time `json:"used"`
	path    string
}

// maxListed limits the size of what a list says of a container.
const maxListed = 64 << 10

// List returns the containers of the calling user on this machine. It needs no
// privilege.
func List(site config.Named) ([]Listed, error) {
	nodes, err := os.ReadDir(site.Directory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var all []Listed
	for _, node := range nodes {
		if !node.IsDir() {
			continue
		}
		dir := filepath.Join(site.Directory, node.Name(), strconv.Itoa(os.Getuid()), list)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list containers: %w", err)
		}
		for _, e := range entries {
			f, ok := parseKey(e.Name())
			f.path = filepath.Join(filepath.Dir(dir), e.Name())
			f.look()
			if text, err := regular.Read(filepath.Join(dir, e.Name()), maxListed); !ok || err != nil || json.Unmarshal(text, &f.state) != nil {
				continue
			}
			all = append(all, Listed{Name: f.name, Node: node.Name(), Job: f.job, Image: f.state.Image, Size: f.size, Created: f.state.Created, Used: f.used, path: f.path})
		}
	}
	return all, nil
}

// Remove removes a container of the calling user. Its room is free when the next
// job ends on the node, or a step asks for the name.
func (l Listed) Remove() error { return unlist(l.path) }
