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

// accompany starts the processes of hooks that have one, and tells them of the first
// task.
func (e *Engine) accompany(b *built, plan []wire.Record, first int) ([]hook.Company, error) {
	var all []hook.Company
	for _, h := range b.hooks {
		companion, ok := h.(hook.Companion)
		if !ok {
			continue
		}
		began := time.Now()
		step, err := e.step(b, plan, first)
		if err == nil {
			var c hook.Company
			c, err = companion.Accompany(step)
			all = append(all, c)
		}
		if err == nil {
			err = meet(all[len(all)-1:], first)
		}
		if err != nil {
			return nil, fmt.Errorf("hook %s: %w", h.Name(), err)
		}
		e.say("debug", fmt.Sprintf("hook %s: its process was ready in %s ms", h.Name(), milliseconds(time.Since(began))))
	}
	return all, nil
}

func (e *Engine) step(b *built, plan []wire.Record, first int) (hook.Step, error) {
	env, dir := task.Apply(plan, e.Job.Env)
	umask, err := umaskOf(first)
	if err != nil {
		return hook.Step{}, err
	}
	return hook.Step{
		Request: e.Job.Request, User: e.user(), Env: env, Dir: dir, Umask: umask,
		Filter: e.filter,
		Labels: e.labels(),
		Inside: b.container.Inside,
		Adopt: func(pid int) error {
			e.adopted = append(e.adopted, pid)
			return e.adopt(pid, first)
		},
	}, nil
}

// meet tells them all of a task.
func meet(company []hook.Company, pid int) error {
	var errs []error
	for _, c := range company {
		errs = append(errs, c.Task(pid))
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
