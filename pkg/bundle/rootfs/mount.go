// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// Mount shows a file or directory of the host in the root file system.
type Mount struct {
	Source, Target string
	// AsUser opens the source with the user's file-system identity.
	AsUser bool
	// ReadOnly, NoExec, Devices and Private are the exceptions to
	// read-write, exec, nodev and slave.
	ReadOnly, NoExec, Devices, Private bool
	// Device makes Devices true if the source is a device of the host, or a
	// directory of them.
	Device bool

	// source is the source, open, where [Mount.Open] was called.
	source *opened
}

// ErrNoSource means that a mount's source does not exist.
var ErrNoSource = errors.New("no such file or directory on this node")

// Mount makes one mount. The error wraps [ErrNoSource] where that is the reason.
func (r *Rootfs) Mount(m Mount) error {
	stage := r.nextStage()
	isDir, err := r.prepare(m, stage)
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Source, err)
	}
	if err := r.show(stage, m.Target, isDir); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.Source, m.Target, err)
	}
	return nil
}

// prepare mounts the source at a place out of anyone's reach, which it makes,
// and gives that mount, and those below it, their flags. It reports whether the
// source is a directory.
func (r *Rootfs) prepare(m Mount, at string) (isDir bool, err error) {
	source := m.source
	if source == nil {
		source = r.openSource(m)
		defer source.close()
	}
	if source.err != nil {
		return false, source.err
	}
	if source.isDevice {
		m.Devices = true
	}
	if err := makeMountPoint(at, source.isDir); err != nil {
		return false, err
	}
	if err := source.attach(at); err != nil {
		return false, err
	}
	return source.isDir, setAttributes(at, m)
}

// MountTmpfs mounts an empty file system of the user's. Options are those of
// the runtime specification.
func (r *Rootfs) MountTmpfs(target string, options []string) error {
	stage := r.nextStage()
	err := os.Mkdir(stage, 0o755)
	data := fmt.Sprintf("uid=%d,gid=%d", r.params.User.UID, r.params.User.GID)
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	for _, o := range options {
		switch {
		case strings.Contains(o, "="):
			data += "," + o
		case o == "ro":
			flags |= unix.MS_RDONLY
		case o == "noexec":
			flags |= unix.MS_NOEXEC
		}
	}
	if err == nil {
		err = unix.Mount("brolga", stage, "tmpfs", flags, data)
	}
	if err == nil {
		err = r.show(stage, target, true)
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", target, err)
	}
	return nil
}

// MountSquashfs shows the content of a squashfs file, read-only, in the way that
// the site has chosen. [Mount.OpenSquashfs] must have been called.
func (r *Rootfs) MountSquashfs(m Mount) error {
	r.made++
	stage := filepath.Join(r.params.Dir, "stage", fmt.Sprint(r.made))
	err := os.Mkdir(stage, 0o755)
	if err == nil {
		err = r.mountSquashfs(m, stage)
	}
	if err == nil {
		err = r.show(stage, m.Target, true)
	}
	if err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.Source, m.Target, err)
	}
	return nil
}

func (r *Rootfs) mountSquashfs(m Mount, at string) error {
	if m.source == nil {
		return errors.New("internal error: the squashfs was not opened")
	}
	switch o := m.source; {
	case o.err != nil:
		return o.err
	case o.way == userfile.Kernel:
		return r.mountImage(o.file, at)
	case o.way == userfile.Fuse:
		return r.mountFuse(o.file, r.params.Squashfuse, at)
	}
	return fault.WithHint(errors.New("this cluster mounts no squashfs files that users can change"),
		"keep it where only root can write, or unpack it and mount the directory")
}

// makeMountPoint makes a mount point in a directory of this package. It must not exist:
// a file system can give a name twice, first for a link and then for a file.
func makeMountPoint(path string, isDir bool) error {
	return makeAt(unix.AT_FDCWD, path, isDir)
}

// setAttributes gives a mount, and those below it, their flags.
func setAttributes(path string, m Mount) error { return setFlags(path, m, unix.AT_RECURSIVE) }

// setTopAttributes is setAttributes for one mount only.
func setTopAttributes(path string, m Mount) error { return setFlags(path, m, 0) }

func setFlags(path string, m Mount, recursive uint) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_SLAVE}
	if !m.Devices {
		attr.Attr_set |= unix.MOUNT_ATTR_NODEV
	}
	if m.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if m.NoExec {
		attr.Attr_set |= unix.MOUNT_ATTR_NOEXEC
	}
	if m.Private {
		attr.Propagation = unix.MS_PRIVATE
	}
	err := unix.MountSetattr(-1, path, recursive|unix.AT_SYMLINK_NOFOLLOW, &attr)
	if errors.Is(err, unix.ENOSYS) {
		return setAttributesByRemount(path, attr)
	}
	if err != nil {
		return fmt.Errorf("set mount flags: %w", err)
	}
	return nil
}

// setAttributesByRemount serves kernels before 5.12, where flags can be set for
// one mount only; those below it keep the host's. A remount sets all flags, so
// those that the host has set are repeated.
func setAttributesByRemount(path string, attr unix.MountAttr) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("get mount flags: %w", err)
	}
	const kept = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME
	flags := unix.MS_REMOUNT | unix.MS_BIND | uintptr(st.Flags)&kept
	for _, pair := range [][2]uint64{
		{unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID}, {unix.MOUNT_ATTR_NODEV, unix.MS_NODEV},
		{unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY}, {unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC},
	} {
		if attr.Attr_set&pair[0] != 0 {
			flags |= uintptr(pair[1])
		}
	}
	if err := unix.Mount("", path, "", flags, ""); err != nil {
		return fmt.Errorf("set mount flags: %w", err)
	}
	return unix.Mount("", path, "", uintptr(attr.Propagation)|unix.MS_REC, "")
}

// show moves the prepared mount to its destination in the root file system.
func (r *Rootfs) show(stage, target string, isDir bool) error {
	handle, err := r.openTarget(filepath.Clean(target), isDir)
	if err != nil {
		return err
	}
	defer handle.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(handle.Fd()), &st); err != nil {
		return err
	}
	var root unix.Stat_t
	if err := unix.Fstat(int(r.root.Fd()), &root); err != nil {
		return err
	}
	if st.Dev == root.Dev && st.Ino == root.Ino {
		return errors.New("that is the container's root directory")
	}
	switch targetIsDir := st.Mode&unix.S_IFMT == unix.S_IFDIR; {
	case targetIsDir && !isDir:
		return errors.New("the destination is a directory, the source a file")
	case isDir && !targetIsDir:
		return errors.New("the destination is a file, the source a directory")
	}
	return unix.Mount(stage, fmt.Sprintf("/proc/self/fd/%d", handle.Fd()), "", unix.MS_MOVE, "")
}

// Has tells whether the container shows something at a path.
func (r *Rootfs) Has(path string) bool {
	handle, missing, err := r.openDeepest(filepath.Clean(path))
	if err == nil {
		handle.Close()
	}
	return err != nil || len(missing) == 0
}

// openTarget opens the destination, which it makes if it is missing.
func (r *Rootfs) openTarget(target string, isDir bool) (*os.File, error) {
	handle, missing, err := r.openDeepest(target)
	if err != nil || len(missing) == 0 {
		return handle, err
	}
	defer handle.Close()
	dev, err := deviceOf(handle)
	if err != nil {
		return nil, err
	}
	var made *os.File
	make := func() error {
		made, err = makePath(handle, missing, isDir)
		return err
	}
	if slices.Contains(r.own, dev) {
		err = make()
	} else {
		// On the host's file systems root makes nothing.
		err = r.params.User.Do(make)
	}
	return made, err
}

// openDeepest opens the destination, or the deepest directory on the way to it
// that exists; missing are the names below that.
func (r *Rootfs) openDeepest(target string) (deepest *os.File, missing []string, err error) {
	for path := target; ; path = filepath.Dir(path) {
		// The image may have directories only root can pass. What lies behind
		// one of the host's is the user's to know or not.
		handle, err := r.openInOverlay(path)
		if errors.Is(err, fs.ErrPermission) {
			err = r.params.User.Do(func() (err error) {
				handle, err = pathrs.OpenatInRoot(r.root, path)
				return err
			})
		}
		if errors.Is(err, fs.ErrPermission) {
			err = unix.EACCES // the names on the way are in the message already
		}
		if err == nil {
			return handle, missing, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || path == "/" {
			return nil, nil, fmt.Errorf("resolve destination: %w", err)
		}
		missing = append([]string{filepath.Base(path)}, missing...)
	}
}

// openInOverlay opens a path that does not lead into anything mounted there; one
// that does is refused as if it were forbidden.
func (r *Rootfs) openInOverlay(path string) (*os.File, error) {
	f, err := openPath(int(r.root.Fd()), path, inOverlay)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOSYS) { // the latter before Linux 5.6
		return nil, unix.EACCES
	}
	return f, err
}

// makePath makes directories below dir, the last name as a file unless isDir,
// and opens the last. None of the names may exist, so no link is followed.
func makePath(dir *os.File, names []string, isDir bool) (*os.File, error) {
	at := dir
	for i, name := range names {
		last := i == len(names)-1
		err := makeAt(int(at.Fd()), name, isDir || !last)
		var next int
		if err == nil {
			next, err = unix.Openat(int(at.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		if at != dir {
			at.Close()
		}
		if errors.Is(err, fs.ErrExist) {
			// It was looked for and not found, so it is a link.
			err = errors.New("it is a link to a place that the container lacks")
		}
		if err != nil {
			return nil, fmt.Errorf("make mount point %s: %w", strings.Join(names, "/"), err)
		}
		at = os.NewFile(uintptr(next), name)
	}
	return at, nil
}

func makeAt(dir int, name string, isDir bool) error {
	if isDir {
		return unix.Mkdirat(dir, name, 0o755)
	}
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
