// SPDX-License-Identifier: Apache-2.0

// Package regular reads files that a user names.
//
// A name may lead to a FIFO that nobody writes to, to a terminal, to a device
// without an end or to a huge file. Reading one of these would hang, or take all
// memory. So nothing here waits for another process, only regular files are read,
// and no more of them than the caller allows. The identity is that of the calling
// thread, and links are followed.
package regular

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
)

// ErrNot means that a name leads to something that is not a regular file.
var ErrNot = errors.New("not a regular file")

// Open opens a regular file for reading. The caller closes it.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) { // a socket, a device without a driver
		return nil, not(path)
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = not(path)
	}
	if err == nil {
		return f, nil
	}
	return nil, errors.Join(err, f.Close())
}

func not(path string) error { return &fs.PathError{Op: "read", Path: path, Err: ErrNot} }

// Read returns the content of a regular file of at most limit bytes.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := budget.Open(f, limit)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return text, nil
}
