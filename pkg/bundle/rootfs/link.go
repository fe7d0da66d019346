// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Link makes a symbolic link in the root file system, and directories on the way
// that are missing. A link that leads elsewhere makes room for it; any other file
// stays. On the host's file systems none is made.
func (r *Rootfs) Link(path, target string) error {
	path = filepath.Clean(path)
	err := r.link(filepath.Dir(path), filepath.Base(path), target)
	if err != nil {
		return fmt.Errorf("make link %s: %w", path, err)
	}
	return nil
}

func (r *Rootfs) link(directory, name, target string) error {
	deepest, missing, err := r.openDeepest(directory)
	if err != nil {
		return err
	}
	defer deepest.Close()
	dev, err := deviceOf(deepest)
	if err != nil {
		return err
	}
	if !slices.Contains(r.own, dev) {
		return errors.New("the directory is the host's")
	}
	at := deepest
	if len(missing) > 0 {
		if at, err = makePath(deepest, missing, true); err != nil {
			return err
		}
		defer at.Close()
	}
	return linkAt(at, name, target)
}

func linkAt(dir *os.File, name, target string) error {
	at := int(dir.Fd())
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at, name, buffer)
	switch {
	case errors.Is(err, unix.EINVAL): // it is there, and not a link
		return nil
	case err == nil && string(buffer[:n]) == target:
		return nil
	case err == nil:
		err = unix.Unlinkat(at, name, 0)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return err
	}
	return unix.Symlinkat(target, at, name)
}
