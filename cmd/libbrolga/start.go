// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"syscall"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/job"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// start starts the helper, resolves the step's request meanwhile, and hands it
// over. A helper that gets none ends. Identity: root, in slurmstepd.
func start(c call, socket int) error {
	input, output, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start helper: %w", err)
	}
	defer output.Close()
	err = startHelper(config.HelperPath(), input, socket)
	input.Close()
	if err != nil {
		return err
	}
	text, err := prepare(c)
	if err != nil {
		return err
	}
	// The helper reads as soon as it runs, so a long text waits for that only.
	if _, err := output.Write(text); err != nil {
		return fmt.Errorf("hand over to the helper: %w", err)
	}
	return nil
}

// prepare returns the job of the helper.
func prepare(c call) ([]byte, error) {
	cfg, path, err := c.loadConfig(trust.Read)
	if err != nil {
		return nil, err
	}
	r, err := c.resolve(cfg)
	if err != nil {
		return nil, err
	}
	return job.Job{Config: cfg, ConfigPath: path, Request: r, Env: c.step.Env}.Marshal()
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
	"GOMAXPROCS=2",
	"GOMEMLIMIT=256MiB",
}
