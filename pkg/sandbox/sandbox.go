// SPDX-License-Identifier: Apache-2.0

// Package sandbox takes from a process what it does not need, before it reads what
// an untrusted person wrote.
//
// Two means of the kernel do that, and no privilege is needed for either:
//
//   - Landlock (landlock(7)) limits which files may be opened, made and removed. It
//     also forbids TCP and, since Linux 6.12, signals to processes outside.
//   - A seccomp filter refuses the system calls through which the kernel is attacked
//     most often, and all sockets where there is no need for a network.
//
// A process cannot lift either, and its children have both. Descriptors that were
// open before keep their rights. Landlock limits no stat(2), chmod(2) or utime(2).
//
// Landlock came with Linux 5.13 and has grown since. What the running kernel does not
// know is left out, unless the site requires Landlock. docs/decisions/0017 says which
// program of Brolga has which sandbox, and why.
package sandbox

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Mode is the site's choice.
type Mode string

// The modes.
const (
	Auto     Mode = "auto"     // what the kernel offers
	Required Mode = "required" // a kernel without Landlock is an error
	Off      Mode = "off"
)

// Sandbox says what a process keeps. The zero value keeps no file, no network, and
// what the kernel offers is used.
type Sandbox struct {
	Mode  Mode
	Rules []Rule
	// Network keeps sockets of the internet, to connect to others.
	Network bool
	// Sealed takes the right to execute programs. Without it a program needs a rule.
	Sealed bool
	// Signals keeps the right to send signals to processes outside.
	Signals bool
}

// Enter applies the sandbox to all threads of this process, which must be one
// without cgo (syscall.AllThreadsSyscall). It also sets no_new_privs.
func (s Sandbox) Enter() error {
	return s.enter(inAllThreads)
}

// enter applies the sandbox. each makes a system call in every thread that gets it.
func (s Sandbox) enter(each func(trap, a1, a2, a3 uintptr) error) error {
	if s.Mode == Off {
		return nil
	}
	rules, err := s.ruleset()
	if err != nil {
		return err
	}
	defer rules.close()
	if err := each(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("enter a sandbox: set no_new_privs: %w", err)
	}
	if rules.fd >= 0 {
		if err := each(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules.fd), 0, 0); err != nil {
			return fmt.Errorf("enter a sandbox: restrict files: %w", err)
		}
	}
	err = install(s.filter())
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) { // a kernel without seccomp filters
		err = nil
	}
	if err != nil {
		return fmt.Errorf("enter a sandbox: filter system calls: %w", err)
	}
	return nil
}

// inAllThreads makes a system call in every thread. The kernel keeps no_new_privs and
// Landlock's domain for each thread, and new threads inherit them.
func inAllThreads(trap, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
