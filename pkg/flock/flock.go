// SPDX-License-Identifier: Apache-2.0

// Package flock locks open files. The kernel unlocks a file when the last process that has
// inherited its descriptor closes it or ends, whatever ended it (flock(2)).
package flock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Lock locks a file or directory: how is [unix.LOCK_EX] or [unix.LOCK_SH]. It waits,
// however often Go's signals interrupt that.
func Lock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}

// Try is Lock with [unix.LOCK_EX] if nobody has the lock. It reports whether it did that.
func Try(f *os.File) (locked bool, err error) {
	err = Lock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
