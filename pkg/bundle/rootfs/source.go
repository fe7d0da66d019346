// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// opened is the source of a mount, open, or the reason why it could not be opened.
type opened struct {
	// file is the place (O_PATH), or an open squashfs. It is nil where there is a tree.
	file *os.File
	// tree is a copy of the mount at that place, with all mounts below it. It is nil
	// before Linux 5.2; then file is mounted.
	tree *os.File
	// isDir reports whether it is a directory, isDevice whether it is in the host's
	// /dev.
	isDir, isDevice bool
	// way is how a squashfs is mounted.
	way userfile.Way
	err error
}

// Open opens the source of a mount that [Rootfs.Mount] makes later. It must come
// before [Build]: then no name leads into the container, whose image has files
// with any owner. What cannot be opened is an error of [Rootfs.Mount].
func (m *Mount) Open(user identity.User) {
	m.source = open(*m, user, openPlace)
	if m.source.err == nil {
		m.source.err = m.source.copyTree()
	}
	if m.source.tree != nil {
		m.source.file.Close()
		m.source.file = nil
	}
}

// OpenSquashfs is Open for [Rootfs.MountSquashfs].
func (m *Mount) OpenSquashfs(user identity.User, policy userfile.Policy) {
	m.source = open(*m, user, func(m Mount, o *opened) (err error) {
		o.file, err = userfile.Squashfs(m.Source)
		return err
	})
	if m.source.err == nil {
		// As root: the user may not see all of the way to the file.
		m.source.way, m.source.err = userfile.WayOf(policy, m.source.file)
	}
}

// Close closes the source.
func (m *Mount) Close() {
	if m.source != nil {
		m.source.close()
	}
}

// open calls f with the identity that the mount wants.
func open(m Mount, user identity.User, f func(Mount, *opened) error) *opened {
	o := &opened{}
	var err error
	if m.AsUser {
		err = user.Do(func() error { return f(m, o) })
	} else {
		err = f(m, o)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = ErrNoSource
	case errors.Is(err, fs.ErrPermission) && m.AsUser:
		err = fmt.Errorf("user %s may not reach it: %w", user.Name, unix.EACCES)
	}
	o.err = err
	return o
}

// openPlace opens a file or directory as a place only.
func openPlace(m Mount, o *opened) (err error) {
	if m.AsUser {
		o.file, err = openNoMagic(m.Source)
	} else {
		o.file, err = os.OpenFile(m.Source, unix.O_PATH, 0)
	}
	if err != nil {
		return err
	}
	// Here, because root may not ask a file system that a user serves.
	var st unix.Stat_t
	if err := unix.Fstat(int(o.file.Fd()), &st); err != nil {
		return err
	}
	o.isDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	o.isDevice = m.Device && isDevice(o.file, &st)
	return nil
}

// copyTree copies the mount while nothing of the container is mounted.
func (o *opened) copyTree() error {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH | unix.AT_RECURSIVE
	fd, err := unix.OpenTree(int(o.file.Fd()), "", flags)
	if errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if err == nil {
		o.tree = os.NewFile(uintptr(fd), o.file.Name())
	}
	return err
}

// attach mounts the source at a path that nobody else can change.
func (o *opened) attach(at string) error {
	if o.tree == nil {
		return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", o.file.Fd()), at, "", unix.MS_BIND|unix.MS_REC, "")
	}
	return unix.MoveMount(int(o.tree.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func (o *opened) close() {
	for _, f := range []*os.File{o.file, o.tree} {
		if f != nil {
			f.Close()
		}
	}
}

// openSource opens the source of a mount that was not opened before: one that a
// hook has found. To it, as to everybody else on the node, the
// container does not exist.
func (r *Rootfs) openSource(m Mount) *opened {
	o := open(m, r.params.User, openPlace)
	if o.err == nil {
		o.err = r.refuseOwn(o.file)
	}
	return o
}

// refuseOwn returns an error for a file that the bundle's mounts show.
func (r *Rootfs) refuseOwn(f *os.File) error {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err == nil && strings.HasPrefix(path+"/", r.params.Dir+"/") {
		err = ErrNoSource
	}
	return err
}

// isDevice reports whether an open path is below the host's /dev and on its file
// system, where only root makes devices. A bind mount keeps the nodev of its
// source, so nothing works that does not work on the host.
func isDevice(source *os.File, st *unix.Stat_t) bool {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", source.Fd()))
	if err != nil || !strings.HasPrefix(path, "/dev/") {
		return false
	}
	var dev unix.Stat_t
	return unix.Stat("/dev", &dev) == nil && st.Dev == dev.Dev
}

// openNoMagic opens a path that does not lead through a link such as
// /proc/self/fd/3, which is a file this process has open and not one that the
// user reached.
func openNoMagic(path string) (*os.File, error) {
	f, err := openPath(unix.AT_FDCWD, path, unix.RESOLVE_NO_MAGICLINKS)
	if errors.Is(err, unix.ENOSYS) { // before Linux 5.6
		return os.OpenFile(path, unix.O_PATH, 0)
	}
	return f, err
}

// openPath opens a path (O_PATH) below dir under the restrictions of resolve
// (openat2(2)).
func openPath(dir int, path string, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH, Resolve: resolve}
	if resolve&unix.RESOLVE_NO_SYMLINKS != 0 {
		how.Flags |= unix.O_NOFOLLOW
	}
	return safefile.Open(dir, path, how)
}
