// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/option"
)

// A directory of the host that is the image can be changed by its user at any
// time, and root mounts in it. So root looks at a name once, holds what it found as
// a descriptor, and mounts through that. docs/decisions/0015 says why the root
// directory is built as it is.

// bindImage shows a directory of the host, with what is mounted below it.
func (r *Rootfs) bindImage(directory *opened, at string) error {
	err := directory.attachImage(at)
	if err == nil {
		err = setTopAttributes(at, Mount{ReadOnly: true, Private: true})
	}
	if err != nil {
		return fmt.Errorf("mount image %s: %w", r.params.Image.Name(), err)
	}
	return nil
}

// attachImage is attach for the image. Before Linux 5.2 it leaves out what is mounted
// below, which might be the container itself.
func (o *opened) attachImage(at string) error {
	if o.tree != nil {
		return o.attach(at)
	}
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", o.file.Fd()), at, "", unix.MS_BIND, "")
}

// below is what is mounted on the host below the image.
type below struct {
	// path is relative to the image; isDir tells what is mounted there.
	path  string
	isDir bool
	// hidden reports that the container has removed the mount point.
	hidden bool
}

// openImage copies the mount of a directory that is the image, and finds what is
// mounted below. It comes before the tmpfs, which may be one of those mounts.
func (r *Rootfs) openImage() (*opened, error) {
	directory := &opened{file: r.params.Image}
	err := directory.copyTree()
	if err == nil {
		err = r.findBelow()
	}
	if err == nil && directory.tree == nil && len(r.below) > 0 {
		r.lacksBelow = true
	}
	if err != nil {
		closeAll(directory.tree)
		return nil, fmt.Errorf("mount image %s: %w", r.params.Image.Name(), err)
	}
	return directory, nil
}

// findBelow finds the mounts below the image. What is mounted below one of them comes
// with it.
func (r *Rootfs) findBelow() error {
	id, err := mountns.IDOf(r.params.Image)
	if err != nil {
		return err
	}
	at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", r.params.Image.Fd()))
	if err != nil {
		return err
	}
	table, err := mountns.Table()
	if err != nil {
		return err
	}
	paths := pathsBelow(table, id, at)
	if len(paths) == 0 {
		return nil
	}
	return r.params.User.DoPrivileged(func() error { return r.lookBelow(paths) })
}

// pathsBelow returns the places below a directory at which something is mounted on
// the mount that the directory is on. What the container has of its own is left out.
func pathsBelow(table []mountns.Mount, id int, directory string) []string {
	var all []string
	for _, m := range table {
		name, isBelow := strings.CutPrefix(m.Point, strings.TrimSuffix(directory, "/")+"/")
		if top, _, _ := strings.Cut(name, "/"); isBelow && m.Parent == id && name != "" && !slices.Contains(systemDirectories, top) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	kept := all[:0]
	for _, name := range all {
		isCovered := func(other string) bool { return strings.HasPrefix(name+"/", other+"/") }
		if !slices.ContainsFunc(kept, isCovered) {
			kept = append(kept, name)
		}
	}
	return kept
}

// lookBelow notes what is mounted at the paths. Identity: the user for file servers,
// with root's capabilities.
func (r *Rootfs) lookBelow(paths []string) error {
	for _, name := range paths {
		f, err := openBeneath(r.params.Image, name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
			return fmt.Errorf("%s was renamed while it was looked at", name)
		}
		b := below{path: name, isDir: true} // what does not answer is one, mostly
		if err == nil {
			if mode, err := modeOf(f); err == nil {
				b.isDir = mode&unix.S_IFMT == unix.S_IFDIR
			}
			f.Close()
		}
		r.below = append(r.below, b)
	}
	return nil
}

// openBeneath opens a place below a directory. No automounter mounts anything for that.
func openBeneath(dir *os.File, name string) (*os.File, error) {
	return openPath(int(dir.Fd()), name, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
}

// modeOf returns the type and the permissions of a file, as this node knows them: a
// file server that is dead is not waited for.
func modeOf(f *os.File) (uint32, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_MODE, &st)
	return uint32(st.Mode), err
}

// hideBelow makes sure that the overlay shows nothing that is covered on the host: in
// the upper directory, each mount point is an empty file or an opaque directory.
func (r *Rootfs) hideBelow(upper *os.File) error {
	for i := range r.below {
		b := &r.below[i]
		dir, err := r.makeParents(upper, path.Dir(b.path))
		if dir == nil && err == nil {
			b.hidden = true
			continue
		}
		if err == nil {
			b.hidden, err = r.hideAt(dir, path.Base(b.path), b.isDir)
			closeUnless(dir, upper)
		}
		if err != nil {
			return fmt.Errorf("hide what is covered at %s: %w", b.path, err)
		}
	}
	return nil
}

func closeUnless(f, not *os.File) {
	if f != not {
		f.Close()
	}
}

// makeParents makes a directory in the upper one, and those above, as the image has
// them, and opens it. The result is nil where a container that is kept has something
// else there, which hides what is below.
func (r *Rootfs) makeParents(upper *os.File, dir string) (*os.File, error) {
	at, from := upper, r.lower
	if dir == "." {
		return at, nil
	}
	defer func() { closeUnless(from, r.lower) }()
	for _, name := range strings.Split(dir, "/") {
		next, err := r.openDirectory(from, name)
		closeUnless(from, r.lower)
		from = r.lower // until it is known to be open
		if err != nil {
			closeUnless(at, upper)
			return nil, err
		}
		from = next
		made, err := makeLike(at, name, from)
		closeUnless(at, upper)
		if made == nil || err != nil {
			return nil, err
		}
		at = made
	}
	return at, nil
}

// openDirectory opens a directory of the image by its name, as a place.
func (r *Rootfs) openDirectory(dir *os.File, name string) (f *os.File, err error) {
	err = r.params.User.DoPrivileged(func() error {
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			f = os.NewFile(uintptr(fd), name)
		}
		return err
	})
	return f, err
}

// makeLike makes a directory with the owner and mode of another, or opens the one that
// is there. The result is nil where there is something else.
func makeLike(dir *os.File, name string, like *os.File) (*os.File, error) {
	made := unix.Mkdirat(int(dir.Fd()), name, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return nil, made
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if made == nil {
		err = copyModeAt(like, f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func copyModeAt(from, to *os.File) error {
	var st unix.Stat_t
	err := unix.Fstat(int(from.Fd()), &st)
	if err == nil {
		err = unix.Fchown(int(to.Fd()), int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = unix.Fchmod(int(to.Fd()), st.Mode&0o7777)
	}
	return err
}

// hideAt makes the mount point. It reports whether the container has something else
// there, which hides what the image has.
func (r *Rootfs) hideAt(dir *os.File, name string, isDir bool) (hidden bool, err error) {
	if !isDir {
		err := makeAt(int(dir.Fd()), name, false)
		if errors.Is(err, fs.ErrExist) {
			return expectDirectory(dir, name) == nil, nil
		}
		return false, err
	}
	err = unix.Mkdirat(int(dir.Fd()), name, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return false, unix.Fsetxattr(fd, "trusted.overlay.opaque", []byte("y"), 0)
}

// showBelow shows in the overlay what is mounted below the image, as far as the user
// may reach it. The rest stays empty.
func (r *Rootfs) showBelow() error {
	image, err := mountns.IDOf(r.lower)
	if err != nil {
		return err
	}
	for _, b := range r.below {
		source, mode := r.openBelow(b)
		if source.file == nil {
			continue
		}
		// The copy lacks mounts that were made or moved since.
		id, err := mountns.IDOf(source.file)
		if err == nil && id != image && !b.hidden {
			err = r.showAt(b, source, mode)
		}
		source.close()
		if err != nil {
			return fmt.Errorf("show what is mounted at %s in the image: %w", b.path, err)
		}
	}
	return nil
}

// openBelow opens one of the mounts as the user. There is no file if the user may not
// reach it, or if nobody can.
func (r *Rootfs) openBelow(b below) (source opened, mode uint32) {
	err := r.params.User.Do(func() (err error) {
		if source.file, err = openBeneath(r.lower, b.path); err == nil {
			mode, err = modeOf(source.file)
		}
		return err
	})
	if err != nil {
		source.close()
		source.file = nil
	}
	return source, mode
}

// isScratch reports whether what is mounted is for temporary files: a job's own /tmp,
// or a directory to which all users may write.
func (b below) isScratch(mode uint32) bool {
	const scratch = unix.S_ISVTX | unix.S_IWOTH
	return b.isDir && (b.path == "tmp" || b.path == "var/tmp" || mode&scratch == scratch)
}

// showAt shows what is mounted at one place. It is read-only, as the image is, but for
// directories that are there to be written to.
func (r *Rootfs) showAt(b below, source opened, mode uint32) error {
	isDir := mode&unix.S_IFMT == unix.S_IFDIR
	if isDir != b.isDir {
		return errors.New("it was replaced while it was looked at")
	}
	target, err := openPath(int(r.root.Fd()), b.path, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return err
	}
	defer target.Close()
	stage := r.nextStage()
	if err := makeMountPoint(stage, isDir); err != nil {
		return err
	}
	if err := source.attach(stage); err != nil {
		return err
	}
	if err := setAttributes(stage, Mount{ReadOnly: !b.isScratch(mode)}); err != nil {
		return err
	}
	return unix.Mount(stage, fmt.Sprintf("/proc/self/fd/%d", target.Fd()), "", unix.MS_MOVE, "")
}

// maxEntries limits how many mounts an image costs that cannot be below an overlay.
const maxEntries = 1000

// composeRoot makes the root directory of a tmpfs in which each file and directory of
// the image's root is mounted, read-only: what libcontainer mounts on is ours then.
func (r *Rootfs) composeRoot() error {
	if err := r.checkComposable(); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("brolga", r.Path, "tmpfs", flags, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("mount the root directory: %w", err)
	}
	root, err := os.OpenFile(r.Path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open the root directory: %w", err)
	}
	defer root.Close()
	names, err := r.entries()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := r.showEntry(root, name); err != nil {
			return fmt.Errorf("show /%s of the image: %w", name, err)
		}
	}
	for _, name := range systemDirectories {
		if err := unix.Mkdirat(int(root.Fd()), name, 0o755); err != nil {
			return fmt.Errorf("make /%s: %w", name, err)
		}
	}
	if r.params.Rootless { // its owner may be nobody there
		return nil
	}
	return copyMode(r.lower, r.Path)
}

// checkComposable returns an error where something would show that is covered on the
// host.
func (r *Rootfs) checkComposable() error {
	switch {
	case r.lacksBelow:
		return fmt.Errorf("something is mounted below the image, at %s, and its file system cannot be below an overlay: that needs Linux 5.2 or newer", r.below[0].path)
	case len(r.below) > 0 && r.params.Saved:
		return fmt.Errorf("--%s: something is mounted below the image, at %s, and its file system cannot be below an overlay", option.Save, r.below[0].path)
	}
	return nil
}

// entries returns the names in the image's root directory, less the system's.
func (r *Rootfs) entries() (names []string, err error) {
	err = r.params.User.DoPrivileged(func() error {
		fd, err := unix.Openat(int(r.lower.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		dir := os.NewFile(uintptr(fd), "/")
		defer dir.Close()
		names, err = dir.Readdirnames(maxEntries + 1)
		return err // io.EOF where it is empty
	})
	if len(names) > maxEntries {
		err = fault.WithHint(fmt.Errorf("it has more than %d files, and lies on a file system that overlayfs does not take", maxEntries),
			"use a directory of another file system, or one with fewer files at its top")
	}
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read the image's root directory: %w", err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(systemDirectories, n) }), nil
}

// showEntry shows one file or directory of the image's root directory, and what is
// mounted below.
func (r *Rootfs) showEntry(root *os.File, name string) error {
	source, target, st, err := r.openEntry(name)
	defer source.close()
	switch {
	case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		return nil
	case errors.Is(err, fs.ErrPermission): // another user's, who does not let root look
		return nil
	case err != nil:
		return err
	}
	at := filepath.Join(r.Path, name)
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if err := unix.Symlinkat(target, int(root.Fd()), name); err != nil {
			return err
		}
		if r.params.Rootless {
			return nil
		}
		return os.Lchown(at, int(st.Uid), int(st.Gid))
	}
	if err := makeMountPoint(at, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	if err := source.attach(at); err != nil {
		return err
	}
	return setAttributes(at, Mount{ReadOnly: true})
}

// openEntry opens a file in the image's root directory. Target is that of a link.
// Identity: the user for file servers, with root's capabilities.
func (r *Rootfs) openEntry(name string) (source opened, target string, st unix.Stat_t, err error) {
	err = r.params.User.DoPrivileged(func() error {
		fd, err := unix.Openat(int(r.lower.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		source.file = os.NewFile(uintptr(fd), name)
		err = unix.Fstat(fd, &st)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			target, err = readLink(source.file)
		}
		return err
	})
	return source, target, st, err
}

// readLink reads an open link (readlinkat(2)).
func readLink(link *os.File) (string, error) {
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(link.Fd()), "", buffer)
	return string(buffer[:max(n, 0)]), err
}
