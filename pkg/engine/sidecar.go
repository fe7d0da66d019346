// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/task"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// startSidecars starts the processes of hooks that have one, and tells them of the first
// task.
func (r *run) startSidecars(s *started, plan []wire.Record, first int) ([]hook.Sidecar, error) {
	var all []hook.Sidecar
	for _, h := range s.hooks {
		starter, ok := h.(hook.SidecarStarter)
		if !ok {
			continue
		}
		began := time.Now()
		sidecar, err := r.startSidecar(starter, s, plan, first)
		if err != nil {
			return nil, fmt.Errorf("hook %s: %w", h.Name(), err)
		}
		all = append(all, sidecar)
		r.addMessage("debug", fmt.Sprintf("hook %s: its process was ready in %s ms", h.Name(), milliseconds(time.Since(began))))
	}
	return all, nil
}

func (r *run) startSidecar(h hook.SidecarStarter, s *started, plan []wire.Record, first int) (hook.Sidecar, error) {
	step, err := r.hookStep(s, plan, first)
	if err != nil {
		return nil, err
	}
	sidecar, err := h.StartSidecar(step)
	if err != nil {
		return nil, err
	}
	return sidecar, sidecar.Task(first)
}

// hookStep is what a hook is told that starts a process.
func (r *run) hookStep(s *started, plan []wire.Record, first int) (hook.Step, error) {
	env, dir := task.Apply(plan, r.Step.Env)
	umask, err := umaskOf(first)
	if err != nil {
		return hook.Step{}, err
	}
	return hook.Step{
		Request: r.request, User: r.user(), Env: env, Dir: dir, Umask: umask,
		Filter: r.filter,
		Labels: r.labels(),
		Inside: s.container.Inside,
		Adopt: func(pid int) error {
			r.processes = append(r.processes, pid)
			return r.joinTask(pid, first)
		},
	}, nil
}

// tellSidecars tells all of a task.
func tellSidecars(sidecars []hook.Sidecar, pid int) error {
	var errs []error
	for _, s := range sidecars {
		errs = append(errs, s.Task(pid))
	}
	return errors.Join(errs...)
}

// umaskOrStrictest returns the umask of a process. Of one that cannot be asked any more
// it returns 077: a file is for its user alone then.
func umaskOrStrictest(pid int) int {
	umask, err := umaskOf(pid)
	if err != nil {
		return 0o077
	}
	return umask
}

// umaskOf returns the umask of a process (proc(5), since Linux 4.7).
func umaskOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read the umask of a task: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			umask, err := strconv.ParseUint(strings.TrimSpace(value), 8, 16)
			return int(umask), err
		}
	}
	return 0o022, nil
}
