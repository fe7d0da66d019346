// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// Limits of the memory of a program that reads what users make. Go collects garbage to
// stay below the first. The kernel gives no more than the second (RLIMIT_DATA), which Go
// does not survive: it is the last resort. Go itself sets aside some 130 MiB of it, which
// is not used.
const (
	softMemory = 40 << 20
	hardMemory = 256 << 20
)

// memory is the limit of this process, which has only one. Programs that it starts get the
// limit from before.
var memory struct {
	mu          sync.Mutex
	limited     bool
	before, own unix.Rlimit
	starting    int // programs
}

// LimitMemory limits the memory of this process, and not of the programs that it starts.
func LimitMemory() error {
	debug.SetMemoryLimit(softMemory)
	return limitData(hardMemory)
}

// limitData sets the last resort, in bytes.
func limitData(size uint64) error {
	memory.mu.Lock()
	defer memory.mu.Unlock()
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &memory.before); err != nil {
		return fmt.Errorf("limit the memory: %w", err)
	}
	memory.own = memory.before
	memory.own.Cur = min(memory.own.Cur, size)
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &memory.own); err != nil {
		return fmt.Errorf("limit the memory: %w", err)
	}
	memory.limited = true
	return nil
}

// withoutLimit calls start, which starts a program: that inherits the limit that this
// process has then.
func withoutLimit(start func() error) error {
	if err := lift(1, &memory.before); err != nil {
		return err
	}
	return errors.Join(start(), lift(-1, &memory.own))
}

// lift sets the limit when the first program is going to be started, and when the last one
// was.
func lift(change int, limit *unix.Rlimit) error {
	memory.mu.Lock()
	defer memory.mu.Unlock()
	first := memory.starting == 0
	memory.starting += change
	if !memory.limited || !first && memory.starting > 0 {
		return nil
	}
	if err := unix.Setrlimit(unix.RLIMIT_DATA, limit); err != nil {
		return fmt.Errorf("set the limit of memory: %w", err)
	}
	return nil
}

// HideMemory keeps what this process remembers, such as passwords and keys, out of core
// files, and from other processes of its user (PR_SET_DUMPABLE, prctl(2)). Programs that
// it starts are as they were.
func HideMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide the memory from core files: %w", err)
	}
	return nil
}
