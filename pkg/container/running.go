// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/bundle"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// Label says of a container what others need who join it. It is attached where
// nobody but root can write it, so what it says is so.
type Label struct {
	// Node is where it is, Step which one started it, Name how its user calls it
	// and Job the job that the name belongs to, or 0.
	Node, Step, Name string
	Job              uint32
	UID              uint32
	// Image is its image in the canonical form.
	Image string
	// Workdir and Env are the image's, with what hooks have set.
	Workdir string
	Env     []string
	// Kinds are the namespaces it has for itself beside the one of mounts, in the
	// order that tasks join them; "user" is the last.
	Kinds []string
}

// Marshal returns the label as records.
func (l Label) Marshal() ([]byte, error) {
	records := []wire.Record{
		{Key: "node", Value: l.Node},
		{Key: "step", Value: l.Step},
		{Key: "name", Value: l.Name},
		{Key: "job", Value: strconv.FormatUint(uint64(l.Job), 10)},
		{Key: "uid", Value: strconv.FormatUint(uint64(l.UID), 10)},
		{Key: "image", Value: l.Image},
		{Key: "workdir", Value: l.Workdir},
	}
	for _, v := range l.Env {
		records = append(records, wire.Record{Key: "env", Value: v})
	}
	for _, k := range l.Kinds {
		records = append(records, wire.Record{Key: "kind", Value: k})
	}
	return wire.Marshal(records)
}

func parseLabel(text []byte) (Label, error) {
	var l Label
	records, err := wire.Unmarshal(text)
	for _, r := range records {
		switch r.Key {
		case "node":
			l.Node = r.Value
		case "step":
			l.Step = r.Value
		case "name":
			l.Name = r.Value
		case "job":
			err = errors.Join(err, parseNumber(r.Value, &l.Job))
		case "uid":
			err = errors.Join(err, parseNumber(r.Value, &l.UID))
		case "image":
			l.Image = r.Value
		case "workdir":
			l.Workdir = r.Value
		case "env":
			l.Env = append(l.Env, r.Value)
		case "kind":
			l.Kinds = append(l.Kinds, r.Value)
		}
	}
	return l, err
}

func parseNumber(text string, into *uint32) error {
	n, err := strconv.ParseUint(text, 10, 32)
	*into = uint32(n)
	return err
}

// ErrNotRunning means that no process is in the container.
var ErrNotRunning = errors.New("no such container runs")

// Running returns the container with a label that wanted accepts, in which a
// process of the user runs, or [ErrNotRunning]. The caller closes it.
//
// Nothing that a user can make passes for a container: only root makes mount
// namespaces that belong to the host's user namespace, and writes labels. Nor is
// another user's found, because all user ids of the process must be the user's.
// Identity: root, in the host's namespaces but for the thread's of mounts; own is
// the host's.
func Running(own *os.File, uid uint32, wanted func(Label) bool) (*Container, Label, error) {
	host, err := openHost(own)
	if err != nil {
		return nil, Label{}, err
	}
	defer host.close()
	names, err := host.proc.Readdirnames(-1)
	if err != nil {
		return nil, Label{}, fmt.Errorf("list processes: %w", err)
	}
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		// What cannot be opened has ended meanwhile, or is not a container's.
		if c, label := host.look(name, uid, wanted); c != nil {
			return c, label, nil
		}
	}
	return nil, Label{}, ErrNotRunning
}

// errForeign is about a namespace that a user made.
var errForeign = errors.New("not made by root")

// host is what is the host's.
type host struct {
	proc  *os.File
	users uint64   // the user namespace
	other []uint64 // mount namespaces that are not the wanted container's
}

func openHost(own *os.File) (*host, error) {
	users, err := inode(unix.AT_FDCWD, "/proc/self/ns/user")
	if err != nil {
		return nil, fmt.Errorf("find namespaces: %w", err)
	}
	var mounts unix.Stat_t
	if err := unix.Fstat(int(own.Fd()), &mounts); err != nil {
		return nil, fmt.Errorf("find namespaces: %w", err)
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	return &host{proc: proc, users: users, other: []uint64{mounts.Ino}}, nil
}

func (h *host) close() { h.proc.Close() }

func inode(dir int, path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, path, &st, 0)
	return st.Ino, err
}

// look returns the container that a process is in, if it is the one. The process is
// held by its directory, so another with its number is not taken for it.
func (h *host) look(pid string, uid uint32, wanted func(Label) bool) (*Container, Label) {
	fd, err := unix.Openat(int(h.proc.Fd()), pid, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, Label{}
	}
	process := os.NewFile(uintptr(fd), "/proc/"+pid)
	defer process.Close()
	mounts, err := inode(fd, "ns/mnt")
	if err != nil || slices.Contains(h.other, mounts) || !runsAs(process, uid) {
		return nil, Label{}
	}
	namespace, err := openAt(process, "ns/mnt")
	if err != nil {
		return nil, Label{}
	}
	var label Label
	if err = errForeign; h.owns(namespace) {
		label, err = readLabel(process)
	}
	if err != nil && !errors.Is(err, errForeign) {
		namespace.Close()
		return nil, Label{} // of another process there it may be seen
	}
	if err != nil || label.UID != uid || !wanted(label) {
		h.other = append(h.other, mounts)
		namespace.Close()
		return nil, Label{}
	}
	c := &Container{Namespace: namespace}
	// Asked last: all was this process's until now.
	if h.addOthers(c, process, label.Kinds) != nil || !runsAs(process, uid) || c.openRoot() != nil {
		c.Namespace.Close()
		for _, o := range c.Others {
			o.File.Close()
		}
		return nil, Label{}
	}
	return c, label
}

// readLabel reads the label in what a process has as its root, which need not be
// the container's: a label that is found is a container's nevertheless.
func readLabel(process *os.File) (Label, error) {
	text := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(fmt.Sprintf("/proc/self/fd/%d/root/dev", process.Fd()), bundle.LabelAttribute, text)
	if err != nil {
		return Label{}, err
	}
	return parseLabel(text[:n])
}

// owns tells whether a namespace belongs to the host's user namespace: root made it.
func (h *host) owns(namespace *os.File) bool {
	fd, err := unix.IoctlRetInt(int(namespace.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return false
	}
	owner := os.NewFile(uintptr(fd), "user namespace")
	defer owner.Close()
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Ino == h.users
}

// addOthers opens the container's other namespaces. A process may be in others,
// such as the launcher of a process namespace, which is outside: then there is
// another process.
func (h *host) addOthers(c *Container, process *os.File, kinds []string) error {
	for _, kind := range kinds {
		if !slices.Contains(option.Namespaces, kind) && kind != "user" {
			return fmt.Errorf("namespace %q", kind)
		}
		f, err := openAt(process, "ns/"+kind)
		if err != nil {
			return err
		}
		c.Others = append(c.Others, Namespace{Kind: kind, File: f})
		mine, err1 := inode(unix.AT_FDCWD, "/proc/self/ns/"+kind)
		its, err2 := inode(int(process.Fd()), "ns/"+kind)
		if err := errors.Join(err1, err2); err != nil || mine == its || !h.owns(f) || (kind == "user" && !madeByRoot(f)) {
			return errors.Join(err, ErrNotRunning)
		}
	}
	return nil
}

// madeByRoot tells whether root made a user namespace (ioctl_ns(2)).
func madeByRoot(namespace *os.File) bool {
	var uid uint32
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, namespace.Fd(), unix.NS_GET_OWNER_UID, uintptr(unsafe.Pointer(&uid)))
	return errno == 0 && uid == 0
}

// openRoot opens the root directory of the container's mount namespace.
func (c *Container) openRoot() error {
	return mountns.Join(c.Namespace, func() (err error) {
		c.Root, err = os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
		return err
	})
}

func openAt(dir *os.File, path string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// runsAs tells whether all user ids of a process are uid (proc_pid_status(5)).
func runsAs(process *os.File, uid uint32) bool {
	f, err := openAt(process, "status")
	if err != nil {
		return false
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(text) {
		if ids, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
			want := strconv.FormatUint(uint64(uid), 10)
			fields := bytes.Fields(ids)
			return len(fields) == 4 && !slices.ContainsFunc(fields, func(f []byte) bool { return string(f) != want })
		}
	}
	return false
}
