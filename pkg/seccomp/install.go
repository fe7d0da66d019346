// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Install puts the filter on all threads of this process, which have no_new_privs,
// and on what it starts. Tasks do the same in C (task/filter.c).
func (f Filter) Install() error {
	const size = unsafe.Sizeof(unix.SockFilter{})
	n := len(f.Program) / int(size)
	if n == 0 || len(f.Program)%int(size) != 0 {
		return errors.New("internal error: malformed filter of system calls")
	}
	program := unix.SockFprog{Len: uint16(n), Filter: (*unix.SockFilter)(unsafe.Pointer(&f.Program[0]))}
	failed, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		uintptr(f.Flags|unix.SECCOMP_FILTER_FLAG_TSYNC), uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(f.Program)
	if errno != 0 {
		return fmt.Errorf("install the site's seccomp profile: %w", errno)
	}
	if failed != 0 {
		return fmt.Errorf("install the site's seccomp profile: thread %d has another", failed)
	}
	return nil
}
