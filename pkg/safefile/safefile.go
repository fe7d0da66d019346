// SPDX-License-Identifier: Apache-2.0

// Package safefile has the few ways in which Brolga handles files where others may interfere:
// it opens names below a directory that nobody can lead out of it, replaces files in one step,
// locks them, and makes files in memory that nobody can change.
//
// What is done with privilege uses these functions, so that one package is to be reviewed.
package safefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Open opens a path under restrictions (openat2(2)), with O_CLOEXEC. Dir is a descriptor, or
// [unix.AT_FDCWD]. The error of a kernel before Linux 5.6 is [unix.ENOSYS].
func Open(dir int, path string, how unix.OpenHow) (*os.File, error) {
	how.Flags |= unix.O_CLOEXEC
	for {
		fd, err := unix.Openat2(dir, path, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // a rename meanwhile
			continue
		}
		return nil, err
	}
}

// Replace gives a file its content in one step, and when the disk has it: a reader sees the
// old content or the new one. Until then the file has another name beside its own, by a
// pattern as that of [os.CreateTemp], which is removed after an error. A link that is there is
// replaced, not followed.
func Replace(path string, content []byte, mode fs.FileMode, pattern string) error {
	f, err := os.CreateTemp(filepath.Dir(path), pattern)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Memory returns the descriptor of a file in memory that nobody can change (memfd_create(2)).
// The position is its beginning.
func Memory(name string, content []byte) (fd int, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("make memory file: %w", err)
	}
	if _, err := unix.Pwrite(fd, content, 0); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("write memory file: %w", err)
	}
	return fd, seal(fd, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
}

// Buffer returns a file in memory of that many bytes, which others can write to and cannot
// make larger.
func Buffer(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	if err := seal(fd, unix.F_SEAL_GROW); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// seal closes the file if it fails.
func seal(fd, seals int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals|unix.F_SEAL_SEAL); err != nil {
		unix.Close(fd)
		return fmt.Errorf("seal memory file: %w", err)
	}
	return nil
}
