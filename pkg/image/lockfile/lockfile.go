// SPDX-License-Identifier: Apache-2.0

// Package lockfile lets one process at a time do a piece of work.
//
// A lock is an open file with flock(2), so it ends with the process that holds
// it, however that ends. The file itself stays: removing it would let two
// processes lock two files of the same name.
package lockfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lock waits for the lock on the file at path, which is made when it is
// missing, and takes it. Closing the file releases it.
//
// waited, if it is not nil, is called once when another process has the lock.
func Lock(ctx context.Context, path string, waited func()) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := Wait(ctx, f, waited); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// Wait is [Lock] for a file that is open. It asks again and again instead of
// sleeping in the kernel, so that it can be interrupted.
func Wait(ctx context.Context, f *os.File, waited func()) error {
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if waited != nil {
			waited()
			waited = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// Try takes the lock on f if no one has it.
func Try(f *os.File) bool {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}
