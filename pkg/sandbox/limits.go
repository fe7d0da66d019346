// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
)

// UsualMemory, in bytes, is where the collector begins to work harder. Without it, layers of
// zstd with the largest windows would take half as much again, as garbage. Only
// images with very many files need more.
const UsualMemory = 384 << 20

// Limit gives up what a conversion does not need, before it reads what a user wrote: the
// limits of the site hold for this process and the programs that it starts. They cannot be
// raised again.
func Limit(limits config.Convert) error {
	debug.SetMemoryLimit(UsualMemory)
	return errors.Join(
		inAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0),
		beNice(5),
		Lower(unix.RLIMIT_CORE, 0),
		Lower(unix.RLIMIT_FSIZE, uint64(limits.Squashfs)),
		Lower(unix.RLIMIT_DATA, uint64(limits.Memory)),
	)
}

// beNice lets others go first, in all threads, unless the nodes are run so already.
func beNice(value int) error {
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 less the nice value (getpriority(2))
	if err != nil || 20-now >= value {
		return err
	}
	return inAllThreads(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(value))
}

// Lower sets a resource limit for good, unless it is lower already.
func Lower(resource int, limit uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return err
	}
	limit = min(limit, now.Max)
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit})
}

// DropAmbient keeps the ambient capabilities of this process from the programs that it
// starts, in all threads.
func DropAmbient() error {
	return inAllThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0)
}
