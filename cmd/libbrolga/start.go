// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/job"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// start resolves the step's request and starts the helper for it. Identity:
// root, in slurmstepd.
func start(c call, socket int) error {
	cfg, path, err := c.loadConfig(trust.Read)
	if err != nil {
		return err
	}
	r, err := c.resolve(cfg)
	if err != nil {
		return err
	}
	text, err := job.Job{Config: cfg, ConfigPath: path, Request: r, Env: c.step.Env}.Marshal()
	if err != nil {
		return err
	}
	input, err := memoryFile(text)
	if err != nil {
		return err
	}
	defer input.Close()
	return startHelper(cfg.Helper, input, socket)
}

// memoryFile returns a file that holds text, positioned at its start.
func memoryFile(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("brolga-job", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "brolga-job")
	if _, err := f.WriteAt(text, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("write memory file: %w", err)
	}
	return f, nil
}

// startHelper executes the helper and does not wait for it. It becomes a
// sibling of slurmstepd, not a child: slurmstepd waits for any child, and finding
// one that is no task costs it a pause of 0.1 s. It ends when the other end of
// socket is closed everywhere.
//
// syscall.ForkExec rather than os/exec: the latter forks once more for a test of
// its own and keeps a descriptor of the child.
func startHelper(path string, input *os.File, socket int) error {
	if err := trust.Check(path); err != nil {
		return fmt.Errorf("start helper: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("start helper: %w", err)
	}
	defer null.Close()
	_, err = syscall.ForkExec(path, []string{path, "step"}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   helperEnv,
		Files: []uintptr{input.Fd(), null.Fd(), null.Fd(), uintptr(socket)},
		Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_PARENT},
	})
	if err != nil {
		return fmt.Errorf("start helper %s: %w", path, err)
	}
	return nil
}

// helperEnv is all of the environment that the privileged helper gets. It lives
// for milliseconds and uses little memory, so it collects no garbage.
var helperEnv = []string{
	"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
	"LC_ALL=C.UTF-8",
	"GOGC=off",
	"GOMEMLIMIT=256MiB",
}
