// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/safefile"
)

// Saved says how to save a root file system.
type Saved struct {
	// Root is its open directory. Mounts below it are left out.
	Root *os.File
	// Dir is the open directory that gets the file Name.
	Dir  *os.File
	Name string
	// UID and GID are root's in the file system, if it is one of a user namespace.
	UID, GID uint32
	Tar2sqfs string
}

// Save writes a root file system, as it is, to a new squashfs. After an error there
// is no file, nor after the end of this process, where the file system can do that. What is kept of files is what [Convert] keeps of those of an image:
// owners, modes, times and user.* attributes, hard links, but no device files, and
// no sockets either. The same files give the same bytes.
//
// It is for a process that may read every file and do nothing else with it: nobody
// else has checked what is there, and it may change meanwhile.
func Save(ctx context.Context, s Saved, limits config.Convert) error {
	ctx, cancel := inTime(ctx, limits)
	defer cancel()
	w := walker{saved: s, left: newBudget(limits), seen: map[fileID]*node{}}
	t := newTree()
	if err := w.directory(ctx, "", t.root); err != nil {
		return err
	}
	to, err := createOutput(s.Dir, s.Name)
	if err != nil {
		return explainSave(err, s.Dir)
	}
	defer to.close()
	out := newWriter("/proc/self/fd/3", s.Tar2sqfs, int64(w.newest))
	out.files, out.overwrites = []*os.File{to.file}, true
	out.explain = func(err error) error { return explainSave(err, s.Dir) }
	err = out.pipe(ctx, func(ctx context.Context) error {
		if err := w.contents(ctx, out, t); err != nil {
			return err
		}
		return out.rest(t)
	})
	if err != nil {
		return err
	}
	return to.publish()
}

// explainSave is explain for what is written to a directory of the user's.
func explainSave(err error, dir *os.File) error {
	return explain(err, func(err error) error {
		var st unix.Statfs_t
		if unix.Fstatfs(int(dir.Fd()), &st) == nil && isFull(st) {
			return errors.New("no space left on device")
		}
		return fault.WithHint(fmt.Errorf("write: %w", err), "perhaps your quota is used up")
	})
}

// fileID identifies a file on the node.
type fileID struct{ dev, ino uint64 }

// walker reads a root file system that a user may change meanwhile.
type walker struct {
	saved  Saved
	left   *budget
	seen   map[fileID]*node // files with several names
	newest uint32
}

// open opens a file by its name. No link is followed, so nothing outside of the
// root file system is opened, nor anything that is mounted there.
func (w *walker) open(name string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	f, err := safefile.Open(int(w.saved.Root.Fd()), path.Join(".", name), how)
	if err != nil {
		return nil, fmt.Errorf("open /%s: %w", name, err)
	}
	return f, nil
}

// directory fills in a directory and all below it.
func (w *walker) directory(ctx context.Context, name string, n *node) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if len(name) > maxPath {
		return fmt.Errorf("/%.40s...: the name is longer than %d bytes", name, maxPath)
	}
	dir, err := w.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("stat /%s: %w", name, err)
	}
	n.file = w.describe(&st)
	n.kind = tar.TypeDir
	if n.attrs, err = w.attributes(dir); err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read /%s: %w", name, err)
	}
	for _, base := range names {
		child, err := w.entry(dir, path.Join(name, base), base)
		if err != nil {
			return err
		}
		if child == nil {
			continue
		}
		n.children[base] = child
		if child.isDir() {
			if err := w.directory(ctx, path.Join(name, base), child); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry describes a file of a directory, or returns nil for one that is not saved.
func (w *walker) entry(dir *os.File, name, base string) (*node, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, fmt.Errorf("stat /%s: %w", name, err)
	}
	id := fileID{uint64(st.Dev), st.Ino}
	if n := w.seen[id]; n != nil {
		return n, nil
	}
	n := &node{file: w.describe(&st), index: -1}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		n.kind, n.children = tar.TypeDir, map[string]*node{}
	case unix.S_IFREG:
		n.kind, n.size = tar.TypeReg, st.Size
		n.attrs, err = w.attributesOf(name)
	case unix.S_IFLNK:
		n.kind, n.mode = tar.TypeSymlink, 0o777
		n.target, err = readlink(dir, base)
	case unix.S_IFIFO:
		n.kind = tar.TypeFifo
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read /%s: %w", name, err)
	}
	if st.Nlink > 1 && !n.isDir() {
		w.seen[id] = n
	}
	return n, w.left.charge(&tar.Header{}, entry{file: n.file, name: name})
}

// describe returns what the status of a file says.
func (w *walker) describe(st *unix.Stat_t) file {
	f := file{mode: uint16(st.Mode & 0o7777), uid: st.Uid, gid: st.Gid, mtime: uint32(min(max(st.Mtim.Sec, 0), maxTime))}
	if f.uid == w.saved.UID {
		f.uid = 0
	}
	if f.gid == w.saved.GID {
		f.gid = 0
	}
	w.newest = max(w.newest, f.mtime)
	return f
}

func readlink(dir *os.File, base string) (string, error) {
	target := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(int(dir.Fd()), base, target)
	return string(target[:max(n, 0)]), err
}

func (w *walker) attributesOf(name string) (map[string]string, error) {
	f, err := w.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return w.attributes(f)
}

// attributes returns the extended attributes of an open file that are kept.
func (w *walker) attributes(f *os.File) (map[string]string, error) {
	at := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	size, err := unix.Listxattr(at, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil
	}
	list := make([]byte, max(size, 0))
	if err == nil {
		size, err = unix.Listxattr(at, list)
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes of %s: %w", f.Name(), err)
	}
	hdr := tar.Header{Typeflag: tar.TypeReg, PAXRecords: map[string]string{}}
	for name := range strings.SplitSeq(string(list[:size]), "\x00") {
		if !strings.HasPrefix(name, keepAttr) || strings.Contains(name, "=") { // as archives of images
			continue
		}
		value := make([]byte, maxAttr)
		n, err := unix.Getxattr(at, name, value)
		if err != nil {
			return nil, fmt.Errorf("read attribute %q of %s: %w", name, f.Name(), err)
		}
		hdr.PAXRecords[xattrTag+name] = string(value[:n])
	}
	return attributes(&hdr), nil
}

// contents writes all files that have content, sorted by name.
func (w *walker) contents(ctx context.Context, out *writer, t *tree) error {
	for name, n := range t.walk() {
		if n.size == 0 || n.path != "" {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := w.content(out, name, n); err != nil {
			return err
		}
		n.path = name
	}
	return nil
}

var errChangedFile = errors.New("it was changed while it was saved")

func (w *walker) content(out *writer, name string, n *node) error {
	f, err := w.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != n.size) {
		err = errChangedFile
	}
	limited := &io.LimitedReader{R: f, N: n.size}
	if err == nil {
		err = out.content(&n.file, name, limited)
	}
	if err == nil && limited.N > 0 {
		err = errChangedFile
	}
	if err != nil {
		return fmt.Errorf("save /%s: %w", name, err)
	}
	return nil
}
