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
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
)

// Sandbox says what a process keeps. The zero value keeps no file and no network.
type Sandbox struct {
	// Site has the site's choice.
	Site  config.Sandbox
	Rules []Rule
	// Network keeps sockets of the internet, to connect to others.
	Network bool
	// Sealed takes the right to execute programs. Without it a program needs a rule.
	Sealed bool
}

// Of returns a sandbox with these rules and the site's.
func Of(site config.Sandbox, rules ...[]Rule) Sandbox {
	return Sandbox{Site: site, Rules: slices.Concat(slices.Concat(rules...), Run(site.Read...), Change(site.Write...))}
}

// Enter applies the sandbox to all threads of this process, which must be one
// without cgo (syscall.AllThreadsSyscall). It also sets no_new_privs.
//
// Signals to processes outside stay allowed. Each thread gets a domain of Landlock's
// of its own, and could not send any to a child of another thread.
func (s Sandbox) Enter() error {
	if s.Site.Mode == config.SandboxOff {
		return nil
	}
	rules, err := s.ruleset(unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET)
	if err != nil {
		return err
	}
	defer rules.Close()
	if err := inAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("enter a sandbox: set no_new_privs: %w", err)
	}
	if rules != nil {
		if err := inAllThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, rules.Fd(), 0, 0); err != nil {
			return fmt.Errorf("enter a sandbox: restrict files: %w", err)
		}
	}
	if hasFilters() {
		err = install(s.filter())
	}
	if err != nil {
		return fmt.Errorf("enter a sandbox: filter system calls: %w", err)
	}
	return nil
}

// Around returns the command that runs c in the sandbox, from its first instruction on:
// the launcher (cmd/brolga-launch) enters it and executes c. The caller calls done when
// the program has started.
func (s Sandbox) Around(launcher string, c command.Cmd) (around command.Cmd, done func(), err error) {
	if s.Site.Mode == config.SandboxOff {
		return c, func() {}, nil
	}
	rules, err := s.ruleset(unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL)
	if err != nil {
		return c, func() {}, err
	}
	descriptor, filter := "-1", "-"
	around = c
	if rules != nil {
		descriptor = strconv.Itoa(3 + len(c.Files))
		around.Files = append(slices.Clone(c.Files), rules)
	}
	if hasFilters() {
		filter = text(s.filter())
	}
	around.Path, around.Name, around.Title = launcher, "", cmp.Or(c.Title, filepath.Base(c.Path))
	around.Args = append([]string{"confine", descriptor, filter, c.Path, cmp.Or(c.Name, c.Path)}, c.Args...)
	return around, func() { rules.Close() }, nil
}

// hasFilters reports whether the kernel has filters of system calls. A process that is
// in strict mode does not get here.
func hasFilters() bool {
	return unix.Prctl(unix.PR_GET_SECCOMP, 0, 0, 0, 0) != unix.EINVAL
}

// inAllThreads makes a system call in every thread. The kernel keeps no_new_privs and
// Landlock's domain for each thread, and new threads inherit them.
func inAllThreads(trap, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
