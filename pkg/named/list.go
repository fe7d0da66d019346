// SPDX-License-Identifier: Apache-2.0

package named

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/safefile"
)

// The list of a user's containers is a directory of the user, who may put anything
// there: links, directories, or a mount of a FUSE file system that never answers. Root
// only looks up names of its own in it, follows no link and enters no mount.

// openList opens the list that the container at path is in, as a place only (O_PATH).
func openList(path string) (*os.File, error) {
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0) // is root's
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := openIn(dir, list, unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir.Name(), list), Err: err}
	}
	return f, nil
}

// openIn opens a name in a directory as a place only.
func openIn(dir *os.File, name string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_PATH | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	f, err := safefile.Open(int(dir.Fd()), name, how)
	if !errors.Is(err, unix.ENOSYS) { // before Linux 5.6
		return f, err
	}
	fd, err := unix.Openat(int(dir.Fd()), name, int(how.Flags)|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// isListed reports whether the user's list has the container. Where that cannot be told
// it has: what is kept is not removed for that.
func isListed(path string) bool {
	dir, err := openList(path)
	if err == nil {
		defer dir.Close()
		var f *os.File
		if f, err = openIn(dir, filepath.Base(path), 0); err == nil {
			return f.Close() == nil
		}
	}
	// EXDEV: something is mounted there.
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EXDEV)
}

// unlist removes a container from the user's list. It removes an empty directory of that
// name as well, and leaves what else the user has put there.
func unlist(path string) error {
	dir, err := openList(path)
	if err == nil {
		defer dir.Close()
		err = unix.Unlinkat(int(dir.Fd()), filepath.Base(path), 0)
		if errors.Is(err, unix.EISDIR) {
			err = unix.Unlinkat(int(dir.Fd()), filepath.Base(path), unix.AT_REMOVEDIR)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s from the list of containers: %w", filepath.Base(path), err)
	}
	return nil
}
