// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/hook/external"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/task"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// answer lets all tasks in, or tells them why it cannot.
func (e *Engine) answer(tasks *task.Listener, first *task.Hello, b *built, err error) error {
	var company []hook.Company
	answer, err := e.compose(first, b, &company, err)
	if err != nil {
		answer = task.Bad(err)
	}
	var saves *saver
	if err == nil && b.saver != nil {
		saves = b.saver
		go e.runSaver(context.Background(), saves)
	}
	known := uint32(1)
	for hello := first; ; {
		hello.Close()
		switch {
		case saves != nil:
			saves.note(hello)
		case hello.Reply != nil:
			hello.Reply.Close() // nobody has been asked to say so
		}
		if hello.Reply == nil {
			if err := tasks.Send(answer); err != nil {
				return err
			}
		}
		if b != nil {
			e.releaseOnce(b.container.Namespace, hello.PID)
		}
		next, sockErr := e.next(tasks, &known)
		if sockErr != nil {
			return errors.Join(err, ended(sockErr))
		}
		if next.Reply != nil {
			hello = next
			continue
		}
		if tellErr := meet(company, next.PID); tellErr != nil {
			err, answer = tellErr, task.Bad(tellErr)
		}
		hello = next
	}
}

// next waits for a task, or for the end of one. A launcher that stays has the socket, and
// its user can make it say anything. So no more tasks are let in than Slurm has said:
// that would be work without end. Known is how many have come.
func (e *Engine) next(tasks *task.Listener, known *uint32) (*task.Hello, error) {
	for {
		hello, err := tasks.Next()
		switch {
		case err != nil, hello.Reply != nil:
			return hello, err
		case *known < e.Job.Request.Tasks:
			*known++
			return hello, nil
		}
		if err := hello.Close(); err != nil {
			return nil, err
		}
	}
}

// compose makes the answer that lets tasks in, once they may enter, and starts what
// the step has besides.
func (e *Engine) compose(first *task.Hello, b *built, company *[]hook.Company, err error) (*task.Answer, error) {
	var plan []wire.Record
	if err == nil {
		plan, err = e.plan(first, b)
	}
	if err == nil {
		e.adopted = e.Servers.Leave()
		*company, err = e.accompany(b, plan, first.PID)
		err = errors.Join(err, e.leaveProcesses())
	}
	told, err := e.gates.pass(err)
	e.tellAudit(err)
	if err != nil {
		return nil, err
	}
	return task.Good(b.container, task.Tell(slices.Concat(plan, e.told, b.log, told), e.Job.Request.Verbosity))
}

func (e *Engine) plan(first *task.Hello, b *built) ([]wire.Record, error) {
	plan, err := task.NewPlan(b.container, b.process, b.numbers, e.Job.Request, e.user(), b.entrypoint, e.Job.Env, first.Cwd)
	plan = append(plan, e.labels().Records()...)
	if e.filter != nil {
		plan = append(plan, wire.Record{Key: "seccomp", Value: e.filter.String()})
	}
	return plan, err
}

// leaveProcesses notes for slurmstepd the processes that work for the container. They end
// with it, unless their user stops them.
func (e *Engine) leaveProcesses() error {
	if e.Local == nil {
		path, err := external.LeaveProcesses(external.Notes(), e.Job.Request.Step, e.adopted, e.Stepd)
		if err == nil && path != "" {
			err = e.Tell(path)
		}
		if err != nil {
			return err
		}
	}
	e.Staying.add(e.adopted)
	return nil
}

// Staying are processes that somebody else ends. The zero value has none.
type Staying struct {
	mu   sync.Mutex
	pids []int
}

func (s *Staying) add(pids []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pids = append(s.pids, pids...)
}

// PIDs returns the numbers of the processes.
func (s *Staying) PIDs() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.pids)
}

// adopt makes a process one of the step that a task is in, to be counted, limited and
// killed with it. The number of a task that the kernel did not tell is 0.
func (e *Engine) adopt(pid, task int) error {
	if task == 0 {
		return nil
	}
	return mountns.Do(e.Namespace, func() error { return container.JoinCgroups(pid, task) })
}

// joinStep returns what makes a process one of the step that a task is in, once that is
// there. Without Slurm there is no step, and it is nil.
func (e *Engine) joinStep(task func() (pid int, err error)) func(pid int) error {
	if e.Local != nil {
		return nil
	}
	return func(pid int) error {
		of, err := task()
		if err != nil {
			return err
		}
		return e.adopt(pid, of)
	}
}

// firstTask waits for the first task and returns its process.
func (e *Engine) firstTask() (pid int, err error) {
	first, err := e.first()
	if err != nil {
		return 0, err
	}
	return first.PID, nil
}

// ended makes the end of all tasks no error.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
