// SPDX-License-Identifier: Apache-2.0

// Package rootfs builds the root file system of a container out of mounts, in
// the mount namespace of the calling thread, which must be a private one
// (package mountns).
//
// # Layout
//
// [Build] covers a directory with a tmpfs, which holds:
//
//	lower/   the image, read-only: squashfs on a loop device or in FUSE, or a
//	         directory of the host
//	upper/   what the step changes, mount points the image lacks, and /proc, /sys
//	         and /dev
//	work/    overlayfs's own
//	kept/    upper and work instead of those, where a container is kept
//	rootfs/  both together (overlayfs), with everything else mounted below it; or
//	         a tmpfs with what is in a directory that overlayfs does not take
//	files/   files made for this step: passwd, group and so on
//	stage/   one mount point for each mount while it is prepared
//	dev/     the container's /dev once more, for libcontainer
//
// Nothing undoes the mounts: they end with the namespace. No user passes the tmpfs.
//
// # Whom it trusts
//
// Neither the image nor the user. Sources of the user's mounts are opened with
// the user's file-system identity before anything is mounted ([Mount.Open]), and
// used through that descriptor. So nothing can be mounted that the user could not
// reach, also if a path changes later, and no name leads into the container.
// Destinations are resolved inside the root file system, symbolic links included.
// A destination that is missing is made by root only in the overlay; inside
// anything mounted there it is made as the user, so that root never writes to the
// host's file systems. All mounts are nosuid, and nodev where they need no devices.
//
// A directory that is the image can change at any time. What root mounts on, and
// what mounts of the host cover there, does not depend on it (directory.go).
package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// Params say what to build.
type Params struct {
	// Dir is an existing directory that the tmpfs covers.
	Dir string
	// Lock is a file all builders of the node share.
	Lock string
	// Image is the open squashfs or directory, Way how it becomes the root file
	// system, and Squashfuse the program that serves it with [userfile.Fuse].
	Image      *os.File
	Way        userfile.Way
	Squashfuse string
	// Sandbox has the site's settings for that program.
	Sandbox config.Sandbox
	// Servers gets the processes that serve squashfs files. Join, if set, makes each a
	// part of the step before it does anything.
	Servers *Servers
	Join    func(pid int) error
	// Kept is an open file with a file system for what is written, which other
	// steps find again, or nil: then it is in memory.
	Kept *os.File
	// TmpfsSize limits the tmpfs, in the words of tmpfs(5).
	TmpfsSize string
	// User is whom the container is for.
	User identity.User
	// UserNamespace, if any, is where the image's root is to be who is root
	// there.
	UserNamespace *os.File
	// Rootless tells that the caller is root of a user namespace alone. The image
	// is then served by squashfuse or a directory, and User is that root.
	Rootless bool
	// Terminal is the device of the host's that the container has as /dev/console,
	// where it cannot have the host's terminals (Rootless), or empty.
	Terminal string
	// Saved says that OpenTree will be called.
	Saved bool
}

// Rootfs is a root file system that has been mounted.
type Rootfs struct {
	// Path is the root directory.
	Path string

	params Params
	lower  *os.File // the image's root directory
	root   *os.File // the root directory
	dev    *os.File // the container's /dev
	below  []below  // mounts of the host below a directory that is the image
	// composed reports that the root directory is a tmpfs with mounts (composeRoot).
	composed bool
	// lacksBelow reports that below cannot be shown.
	lacksBelow bool
	own        []uint64 // device numbers of file systems made here, not the host's
	made       int      // number of mounts and files prepared so far
}

// Build mounts the tmpfs, which it lays out, the image and the overlay. Users
// cannot pass the tmpfs: nothing in it can be reached by a path of theirs.
func Build(p Params) (_ *Rootfs, err error) {
	if p.Dir, err = filepath.EvalSymlinks(p.Dir); err != nil {
		return nil, fmt.Errorf("find run directory: %w", err)
	}
	r := &Rootfs{Path: filepath.Join(p.Dir, "rootfs"), params: p}
	var directory *opened
	if p.Way == userfile.Bind {
		if directory, err = r.openImage(); err != nil {
			return nil, err
		}
		defer func() { closeAll(directory.tree) }()
	}
	options := "mode=0700,size=" + p.TmpfsSize
	if err := unix.Mount("brolga", p.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return nil, fmt.Errorf("mount tmpfs (size=%s): %w", p.TmpfsSize, err)
	}
	for _, name := range []string{"lower", "upper", "work", "rootfs", "files", "stage"} {
		if err := os.Mkdir(filepath.Join(p.Dir, name), 0o755); err != nil {
			return nil, fmt.Errorf("lay out bundle: %w", err)
		}
	}
	if err := r.mountRoot(directory); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// mountRoot mounts the image and the overlay.
func (r *Rootfs) mountRoot(directory *opened) error {
	if err := r.mountLower(directory); err != nil {
		return err
	}
	// In a directory of the host, what is root's stays root's.
	if r.params.UserNamespace != nil && r.params.Way != userfile.Bind {
		if err := r.keepOwners(); err != nil {
			return err
		}
		err := mapOwners(filepath.Join(r.params.Dir, "lower"), r.params.UserNamespace)
		if err != nil && r.params.Way == userfile.Fuse {
			err = fault.WithHint(errors.New("--"+option.RemapRoot+" cannot be used with a squashfs that squashfuse serves"),
				"use an image in a registry or an archive")
		}
		if err != nil {
			return err
		}
	}
	var err error
	if r.lower, err = os.OpenFile(filepath.Join(r.params.Dir, "lower"), unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return fmt.Errorf("open the image's root directory: %w", err)
	}
	return r.mountOverlay()
}

// keepOwners shows the image once more, with the owners that it has, for OpenTree.
func (r *Rootfs) keepOwners() error {
	if !r.params.Saved {
		return nil
	}
	owners := filepath.Join(r.params.Dir, "owners")
	err := os.Mkdir(owners, 0o700)
	if err == nil {
		err = unix.Mount(filepath.Join(r.params.Dir, "lower"), owners, "", unix.MS_BIND, "")
	}
	if err != nil {
		return fmt.Errorf("mount image once more: %w", err)
	}
	return nil
}

// OpenTree opens the root directory of the root file system as it is without
// what is mounted in it. The calling thread must be in the namespace that it was
// built in.
//
// In a user namespace the image's files belong to its root or to nobody. There the
// image and what was written are put together anew, with the owners that they
// have; nothing may be written meanwhile.
func (r *Rootfs) OpenTree() (*os.File, error) {
	dir := r.params.Dir
	if owners := filepath.Join(dir, "owners"); unix.Access(owners, unix.F_OK) == nil {
		upper, at := filepath.Join(dir, "upper"), filepath.Join(dir, "tree")
		if r.params.Kept != nil {
			upper = filepath.Join(dir, "kept", "upper")
		}
		err := os.Mkdir(at, 0o700)
		if err == nil {
			const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
			err = unix.Mount("brolga", at, "overlay", flags, "index=off,lowerdir="+upper+":"+owners)
		}
		if err != nil {
			return nil, fmt.Errorf("mount what the container has written: %w", err)
		}
		return os.OpenFile(at, unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	path := r.Path
	if r.composed {
		path = filepath.Join(dir, "lower")
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open the root file system again: %w", err)
	}
	return os.NewFile(uintptr(fd), r.Path), nil
}

// mountLower mounts the image.
func (r *Rootfs) mountLower(directory *opened) error {
	lower := filepath.Join(r.params.Dir, "lower")
	switch r.params.Way {
	case userfile.Bind:
		return r.bindImage(directory, lower)
	case userfile.Fuse:
		if err := r.mountFuse(r.params.Image, r.params.Squashfuse, lower); err != nil {
			return fmt.Errorf("mount image %s: %w", r.params.Image.Name(), err)
		}
		return nil
	}
	return r.mountImage(r.params.Image, lower)
}

// mapOwners covers a mount with itself, in which the files of root belong to
// the root of the user namespace. All other owners are nobody.
func mapOwners(path string, namespace *os.File) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("map owners of the image: open it again: %w", err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fault.WithHint(fmt.Errorf("map owners of the image: %w", err),
			"--"+option.RemapRoot+" needs a kernel that maps the owners of squashfs files, Linux 6.2 or newer")
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("map owners of the image: mount it: %w", err)
	}
	return nil
}

func (r *Rootfs) mountImage(image *os.File, at string) error {
	device, err := attachLoop(image, r.params.Lock)
	if err != nil {
		return err
	}
	defer device.Close()
	source := fmt.Sprintf("/proc/self/fd/%d", device.Fd())
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount(source, at, "squashfs", flags, ""); err != nil {
		return fmt.Errorf("mount image %s: %w", image.Name(), err)
	}
	return limitReadahead(device)
}

// readahead is how much of a file the kernel reads when a program touches a page
// of it: 128 KiB, the kernel's own default and one block of our squashfs. A loop
// device takes the value of what its file lies on, which for large storage is
// megabytes, and all of that would have to be decompressed before the program
// goes on: importing numpy took a quarter longer with 2.5 MiB.
const readahead = 128 << 10

// limitReadahead must follow mount(2), which sets the value anew (ioctl_list(2),
// BLKRASET, in sectors).
func limitReadahead(device *os.File) error {
	if err := unix.IoctlSetInt(int(device.Fd()), unix.BLKRASET, readahead/512); err != nil {
		return fmt.Errorf("set readahead of the loop device: %w", err)
	}
	return nil
}

func (r *Rootfs) mountOverlay() (err error) {
	if err := r.checkImage(); err != nil {
		return err
	}
	// In a user namespace, what covers something is locked to it, and overlayfs takes
	// no such directory.
	if r.composed = r.params.Rootless && len(r.below) > 0; !r.composed {
		err = r.overlay()
		// There are file systems that cannot be below an overlay.
		r.composed = r.params.Way == userfile.Bind && r.params.Kept == nil && errors.Is(err, errOverlay)
	}
	if r.composed {
		err = r.composeRoot()
	}
	if err != nil {
		return err
	}
	if r.root, err = os.OpenFile(r.Path, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return fmt.Errorf("open root file system: %w", err)
	}
	if err := r.owns(r.root); err != nil || r.composed {
		return err
	}
	return r.showBelow()
}

// errOverlay is about overlayfs, which refuses what it is to show.
var errOverlay = errors.New("mount overlay")

// overlay mounts the overlay, whose upper directory it prepares.
func (r *Rootfs) overlay() (err error) {
	lower, dir, isNew := filepath.Join(r.params.Dir, "lower"), r.params.Dir, true
	if r.params.Kept != nil {
		dir = filepath.Join(dir, "kept")
		if isNew, err = r.mountKept(dir); err != nil {
			return err
		}
	}
	upper := filepath.Join(dir, "upper")
	if isNew {
		if err := copyMode(r.lower, upper); err != nil {
			return err
		}
	}
	if err := r.prepareUpper(upper); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, filepath.Join(dir, "work"))
	if r.params.Way == userfile.Fuse || r.params.Way == userfile.Bind {
		// Attributes with which overlayfs points elsewhere are the user's to make.
		options += ",redirect_dir=nofollow,metacopy=off"
	}
	if r.params.Rootless {
		options += ",userxattr"
	}
	mount := func() error {
		return unix.Mount("brolga", r.Path, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options)
	}
	if r.params.Way == userfile.Bind {
		// Later accesses to the directory are made as who mounts the overlay, and
		// a file server may know root for nobody.
		err = r.params.User.DoPrivileged(mount)
	} else {
		err = mount()
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%w: %w", errOverlay, err)
	if r.params.Rootless {
		return fault.WithHint(err, "without root this needs overlayfs of Linux 5.11 or newer")
	}
	return err
}

// mountKept mounts the file system of a container that is kept, and tells whether
// nobody has used it before.
//
// The file is root's alone, so the kernel reads what it wrote itself. Tables of
// inodes that nobody uses are not written ("noinit_itable"), and room that is free
// again is given back to the disk ("discard"; ext4(5)).
func (r *Rootfs) mountKept(at string) (isNew bool, err error) {
	device, err := attachWritable(r.params.Kept, r.params.Lock)
	if err != nil {
		return false, err
	}
	defer device.Close()
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME
	err = os.Mkdir(at, 0o700)
	if err == nil {
		err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", device.Fd()), at, "ext4", flags, "noinit_itable,discard")
	}
	if err != nil {
		return false, fault.WithHint(fmt.Errorf("mount what is kept of the container: %w", err), "remove the container and make it again")
	}
	for _, name := range []string{"work", "upper"} {
		err = os.Mkdir(filepath.Join(at, name), 0o755)
		isNew = err == nil
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return false, fmt.Errorf("lay out what is kept of the container: %w", err)
		}
	}
	return isNew, nil
}

// systemDirectories are where this package and libcontainer mount as root. They
// are directories of ours, whatever the image has there at any time.
var systemDirectories = []string{"proc", "sys", "dev"}

// checkImage returns an error for an image that has something else there. It
// decides nothing: such an image would show something else than its maker meant.
func (r *Rootfs) checkImage() error {
	for _, name := range systemDirectories {
		var st unix.Stat_t
		err := unix.Fstatat(int(r.lower.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("the image's /%s is not a directory", name)
		}
	}
	return nil
}

// prepareUpper makes the system's directories in the upper directory, before
// overlayfs looks at the image: a directory there hides what else the image has
// (Documentation/filesystems/overlayfs.rst, "Directories").
func (r *Rootfs) prepareUpper(path string) error {
	upper, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open the upper directory: %w", err)
	}
	defer upper.Close()
	for _, name := range systemDirectories {
		// A container that is kept has them.
		err := unix.Mkdirat(int(upper.Fd()), name, 0o755)
		if errors.Is(err, fs.ErrExist) {
			err = expectDirectory(upper, name)
		}
		if err != nil {
			return fmt.Errorf("make /%s: %w", name, err)
		}
	}
	return r.hideBelow(upper)
}

func expectDirectory(dir *os.File, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	return err
}

// MakeTmp makes /tmp where the image lacks it.
func (r *Rootfs) MakeTmp() error {
	path := filepath.Join(r.Path, "tmp")
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chmod(path, os.ModeSticky|0o777)
	}
	if err != nil {
		return fmt.Errorf("make /tmp: %w", err)
	}
	return nil
}

// MakeDirectory makes a directory, and those above it, if it is missing.
func (r *Rootfs) MakeDirectory(path string) error {
	handle, err := r.openTarget(filepath.Clean(path), true)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return handle.Close()
}

// ReadOnly reports that the root file system cannot be written to, whatever the user
// wants: it is a directory that cannot be below an overlay.
func (r *Rootfs) ReadOnly() bool { return r.composed }

// MakeReadOnly makes the root file system read-only, but nothing mounted in it.
// It comes last: mount points cannot be made any more.
func (r *Rootfs) MakeReadOnly() error {
	const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("", r.Path, "", flags, ""); err != nil {
		return fmt.Errorf("make the root file system read-only: %w", err)
	}
	return nil
}

// nextStage returns a path where a mount can be prepared.
func (r *Rootfs) nextStage() string {
	r.made++
	return filepath.Join(r.params.Dir, "stage", fmt.Sprint(r.made))
}

// owns notes that the file system f is on was made here: root may write to it.
func (r *Rootfs) owns(f *os.File) error {
	dev, err := deviceOf(f)
	if err != nil {
		return err
	}
	r.own = append(r.own, dev)
	return nil
}

// copyMode gives to the owner and the permissions of from: the overlay shows
// the upper root directory's.
func copyMode(from *os.File, to string) error {
	var st unix.Stat_t
	err := unix.Fstat(int(from.Fd()), &st)
	if err == nil {
		err = os.Chown(to, int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = os.Chmod(to, fs.FileMode(st.Mode&0o777))
	}
	if err != nil {
		return fmt.Errorf("copy the mode of the image's root directory: %w", err)
	}
	return nil
}

func deviceOf(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return uint64(st.Dev), nil
}

// inImage returns the restrictions (openat2(2)) under which a path stays in the image.
// One that consists of several mounts must be looked at before anything else is
// mounted.
func (r *Rootfs) inImage() uint64 {
	const inside = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	if r.composed || len(r.below) > 0 {
		return inside
	}
	return inside | unix.RESOLVE_NO_XDEV
}

// maxRead limits what ReadFile returns.
const maxRead = 1 << 20

// ReadFile reads, as the user, a small file of the image. The result is nil if
// there is none that the user may read. Nothing must have been mounted in the
// root file system yet.
func (r *Rootfs) ReadFile(path string) (content []byte) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: r.inImage(),
	}
	// Whatever the reason, such an image has no file that could be used.
	_ = r.params.User.Do(func() error {
		f, err := safefile.Open(int(r.root.Fd()), path, how)
		if err != nil {
			return err
		}
		defer f.Close()
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxRead {
			return err
		}
		content, err = io.ReadAll(io.LimitReader(f, maxRead))
		return err
	})
	return content
}

// Close releases descriptors of what was built. The mounts stay until the
// namespace ends.
func (r *Rootfs) Close() error {
	closeAll(r.lower, r.dev)
	if r.root == nil {
		return nil
	}
	return r.root.Close()
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// AddFile makes a file for this step and shows it, read-only, at target.
func (r *Rootfs) AddFile(target string, content []byte) error {
	r.made++
	path := filepath.Join(r.params.Dir, "files", fmt.Sprint(r.made))
	err := os.WriteFile(path, content, 0o444)
	var own opened
	if err == nil {
		own.file, err = os.OpenFile(path, unix.O_PATH, 0)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", target, err)
	}
	defer own.close()
	return r.Mount(Mount{Source: path, Target: target, ReadOnly: true, NoExec: true, source: &own})
}
