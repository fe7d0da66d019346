// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// join calls f for a process that stops at its execve(2), and lets it go on. Its user
// cannot make it do anything before: it has a tracer already (ptrace(2)).
func join(pid int, f func(pid int) error) error {
	for {
		// Its status is left to its parent, which learns how it ended.
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the start of a program: %w", err)
		}
	}
	if err := f(pid); err != nil {
		return err
	}
	if err := unix.PtraceDetach(pid); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("let a program go on: %w", err)
	}
	return nil
}

// notStarted says why a program could not be started.
func notStarted(c Cmd, err error) error {
	err = fmt.Errorf("run %s: %w", c.Path, err)
	if c.Join != nil && errors.Is(err, unix.EPERM) && noTracing("/proc/sys/kernel/yama/ptrace_scope") {
		return fault.WithHint(err, "kernel.yama.ptrace_scope=3 on this node lets nobody stop it until it is in the step; "+
			"an administrator sets 2 or less, which needs a reboot")
	}
	return err
}

// noTracing tells whether Yama, in whose file that is, forbids ptrace(2) altogether
// (Documentation/admin-guide/LSM/Yama.rst of the kernel).
func noTracing(file string) bool {
	scope, err := os.ReadFile(file)
	return err == nil && strings.TrimSpace(string(scope)) == "3"
}
