// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/hook/external"
	"github.com/brolga-hpc/brolga/pkg/task"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// letIn answers all tasks, until none can come any more: it lets them in, or tells them why
// it cannot.
func (r *run) letIn(tasks *task.Listener, first *task.Hello, s *started, err error) error {
	answer, sidecars, err := r.admit(first, s, err)
	if err != nil {
		answer, s = task.Bad(err), nil
	}
	if s != nil && s.saver != nil {
		go r.runSaver(context.Background(), s.saver)
	}
	known := uint32(1)
	for hello := first; ; {
		if err := r.greet(tasks, hello, answer, s); err != nil {
			return err
		}
		next, ends := r.nextTask(tasks, &known)
		if ends != nil {
			return errors.Join(err, ended(ends))
		}
		if next.Reply == nil {
			if failed := tellSidecars(sidecars, next.PID); failed != nil {
				err, answer = failed, task.Bad(failed)
			}
		}
		hello = next
	}
}

// greet answers one task, or takes the word of a launcher that its task has ended. Without a
// container s is nil.
func (r *run) greet(tasks *task.Listener, hello *task.Hello, answer *task.Answer, s *started) error {
	hello.Close()
	switch {
	case s != nil && s.saver != nil:
		s.saver.note(hello)
	case hello.Reply != nil:
		hello.Reply.Close() // nobody has been asked to say so
	}
	if hello.Reply == nil {
		if err := tasks.Send(answer); err != nil {
			return err
		}
	}
	if s != nil {
		r.releaseOnce(s.container.Namespace, hello.PID)
	}
	return nil
}

// nextTask waits for a task, or for the end of one. A launcher that stays has the socket, and
// its user can make it say anything. So no more tasks are let in than Slurm has said:
// that would be work without end. Known is how many have come.
func (r *run) nextTask(tasks *task.Listener, known *uint32) (*task.Hello, error) {
	for {
		hello, err := tasks.Next()
		switch {
		case err != nil, hello.Reply != nil:
			return hello, err
		case *known < r.request.Tasks:
			*known++
			return hello, nil
		}
		if err := hello.Close(); err != nil {
			return nil, err
		}
	}
}

// admit makes the answer that lets tasks in, once they may enter, and starts the step's
// sidecars. It tells the other nodes of a failure.
func (r *run) admit(first *task.Hello, s *started, failure error) (*task.Answer, []hook.Sidecar, error) {
	var plan []wire.Record
	var sidecars []hook.Sidecar
	err := failure
	if err == nil {
		plan, err = r.plan(first, s)
	}
	if err == nil {
		r.processes = r.Servers.Leave()
		sidecars, err = r.startSidecars(s, plan, first.PID)
		err = errors.Join(err, r.noteProcesses())
	}
	waited, err := r.barriers.wait(err)
	r.writeAudit(err)
	if err != nil {
		return nil, nil, err
	}
	records := slices.Concat(plan, r.messages, s.log, waited)
	answer, err := task.Good(s.container, task.Tell(records, r.request.Verbosity))
	return answer, sidecars, err
}

// plan is what each task is told.
func (r *run) plan(first *task.Hello, s *started) ([]wire.Record, error) {
	plan, err := task.NewPlan(s.container, s.process, s.numbers, r.request, r.user(), s.entrypoint, r.Step.Env, first.Cwd)
	plan = append(plan, r.labels().Records()...)
	if r.filter != nil {
		plan = append(plan, wire.Record{Key: "seccomp", Value: r.filter.String()})
	}
	return plan, err
}

// noteProcesses notes for slurmstepd the processes that work for the container. They end
// with it, unless their user stops them.
func (r *run) noteProcesses() error {
	if r.Local == nil {
		path, err := external.LeaveProcesses(external.Notes(), r.request.Step, r.processes, r.Stepd)
		if err == nil && path != "" {
			err = r.Tell(path)
		}
		if err != nil {
			return err
		}
	}
	r.Staying.add(r.processes)
	return nil
}

// ended makes the end of all tasks no error.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
