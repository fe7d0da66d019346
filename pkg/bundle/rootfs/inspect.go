// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenFile opens, as the user, a regular file of the image by an absolute path, and
// returns the path that links in the image lead to. What is mounted in the root
// file system cannot be opened.
func (r *Rootfs) OpenFile(path string) (f *os.File, resolved string, err error) {
	err = r.params.User.Do(func() error {
		f, err = r.openImageFile(path, r.inImage())
		return err
	})
	if err != nil {
		return nil, "", err
	}
	at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	resolved, inside := strings.CutPrefix(at, r.Path+"/")
	if err == nil && !inside {
		err = errors.New("it is not in the image") // the user moved it meanwhile
	}
	if err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	return f, "/" + resolved, nil
}

// Cover shows a file of the host, read-only, in place of an open one of the image,
// under all its names that are links.
func (r *Rootfs) Cover(file *os.File, source string) error {
	stage := r.nextStage()
	isDir, err := r.prepare(Mount{Source: source, ReadOnly: true}, stage)
	if err == nil && isDir {
		err = errors.New("it is a directory")
	}
	if err == nil {
		err = unix.Mount(stage, fmt.Sprintf("/proc/self/fd/%d", file.Fd()), "", unix.MS_MOVE, "")
	}
	if err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, filepath.Base(file.Name()), err)
	}
	return nil
}

// Add shows a file of the host, read-only, at a path that the image lacks.
func (r *Rootfs) Add(source, target string) error {
	return r.Mount(Mount{Source: source, Target: target, ReadOnly: true})
}
