// SPDX-License-Identifier: Apache-2.0

// Package trust says whether a path is safe to act on with privilege, and opens
// it so that the answer stays true.
package trust

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrTamperable means that someone other than root could change the file.
var ErrTamperable = errors.New("someone other than root could change it")

// Read returns the content of a file that only root can have written: it and
// all directories above belong to root and nobody else may write to them. A
// "no" wraps [ErrTamperable]; any other error means "could not tell".
//
// The file is opened before it is checked. Directories are checked by name, but
// once one and those above are root's alone, no other user can exchange it.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if err := check(path, &st, 0o022); err != nil {
		return nil, err
	}
	if err := Check(path); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// Check tells whether the file at path, symbolic links followed, and all
// directories above are root's alone.
func Check(path string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for ; ; path = filepath.Dir(path) {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("stat %s: %w", path, err)
		}
		writable := uint32(0o022)
		if st.Mode&unix.S_ISVTX != 0 && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			writable = 0 // what root owns there cannot be exchanged by others
		}
		if err := check(path, &st, writable); err != nil {
			return err
		}
		if path == "/" {
			return nil
		}
	}
}

func check(path string, st *unix.Stat_t, writable uint32) error {
	if st.Uid != 0 || st.Mode&writable != 0 {
		return fmt.Errorf("%s (owner %d, mode %04o): %w", path, st.Uid, st.Mode&0o7777, ErrTamperable)
	}
	return nil
}
