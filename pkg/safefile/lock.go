// SPDX-License-Identifier: Apache-2.0

package safefile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Lock locks a file or directory (flock(2)). The kernel unlocks it when the last process that
// has inherited the descriptor closes it or ends, whatever ended it. How is [unix.LOCK_EX] or [unix.LOCK_SH]. It waits,
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
