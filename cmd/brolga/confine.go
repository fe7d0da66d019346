// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
)

// usualMemory is where the collector begins to work harder. Without it, layers of
// zstd with the largest windows would take half as much again, as garbage. Only
// images with very many files need more.
const usualMemory = 384 << 20

// confine gives up what a conversion does not need, before it reads what a user
// wrote.
func confine(limits config.Convert) error {
	debug.SetMemoryLimit(usualMemory)
	return errors.Join(
		inAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0),
		beNice(5),
		lower(unix.RLIMIT_CORE, 0),
		lower(unix.RLIMIT_FSIZE, uint64(limits.Squashfs)),
		lower(unix.RLIMIT_DATA, uint64(limits.Memory)),
	)
}

// inAllThreads makes a system call in every thread, for what the kernel keeps for
// each and new ones inherit: layers are read in several. It needs a program
// without cgo, as this one is built.
func inAllThreads(trap, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// beNice lets others go first, in all threads, unless the nodes are run so already.
func beNice(value int) error {
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 less the nice value (getpriority(2))
	if err != nil || 20-now >= value {
		return err
	}
	return inAllThreads(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(value))
}

// lower sets a resource limit, unless it is lower already.
func lower(resource int, limit uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return err
	}
	limit = min(limit, now.Max)
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit})
}
