// SPDX-License-Identifier: Apache-2.0

// Package engine has the recipe of the helper: from a step to tasks that are in their
// container. Read it first; each stage is one package:
//
//	image      an open squashfs or directory, and its configuration    openImage       pkg/image
//	hooks      what applies to the step and the image, in order        selectHooks     pkg/hook
//	bundle     mounts are made, the OCI specification is written       makeBundle      pkg/bundle
//	container  namespaces that tasks can join                          startContainer  pkg/container
//	plan       what each task is told                                  admit           pkg/task
//
// [Engine] is what does not change while the helper lives. A run is the work for one step,
// and has what becomes known on the way. Three things differ between steps: whether a task
// must be there first (serveLate), whether the container is new or has a name (named.go),
// and whether it is saved in the end (save.go).
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/brolga-hpc/brolga/pkg/bundle"
	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/task"
)

func (e *Engine) newRun(firstTask func() (*task.Hello, error)) *run {
	r := &run{Engine: e, request: e.Step.Request, firstTask: sync.OnceValues(firstTask)}
	r.openAudit()
	r.barriers = r.beginBarriers()
	return r
}

// Serve prepares the container while Slurm starts the step's tasks, lets each
// task in, and returns when none can come any more. What goes wrong is told to
// the tasks; the error returned is for the log.
func (e *Engine) Serve(ctx context.Context, tasks *task.Listener) error {
	r := e.newRun(tasks.Next)
	if r.request.NeedsTask() {
		return r.serveLate(ctx, tasks)
	}
	s, startErr := r.startIn(ctx, nil)
	first, err := r.firstTask()
	if err != nil {
		return ended(err)
	}
	// Under job_container/tmpfs tasks are in a namespace of their job, which
	// nobody knows before the first of them is there.
	if same, err := mountns.Same(e.Namespace, first.Namespace); err != nil || !same {
		if s != nil {
			defer s.container.Close() // libcontainer still needs it
		}
		e.Servers.Kill()
		s, startErr = r.startIn(ctx, first.Namespace)
		startErr = errors.Join(err, startErr)
	}
	return r.letIn(tasks, first, s, startErr)
}

// serveLate is Serve for a request that depends on where the tasks are, or where
// nothing can be made twice.
func (r *run) serveLate(ctx context.Context, tasks *task.Listener) error {
	first, err := r.firstTask()
	if err != nil {
		return ended(err)
	}
	var s *started
	if r.request, err = completeRequest(r.request, first); err == nil {
		s, err = r.startIn(ctx, first.Namespace)
	}
	return r.letIn(tasks, first, s, err)
}

// completeRequest adds to a request what its first task knows: the step's working directory,
// and Slurm's PMIx server.
func completeRequest(r request.Request, first *task.Hello) (request.Request, error) {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", first.Cwd.Fd()))
	if err != nil {
		return r, fmt.Errorf("find the step's working directory: %w", err)
	}
	return r.In(cwd).WithPMIx(first.Env)
}

// Refuse tells the other nodes of a step why it cannot start here, and returns what
// to tell the tasks.
func (e *Engine) Refuse(reason error) error {
	r := e.newRun(nil)
	r.writeAudit(reason)
	_, err := r.barriers.wait(reason)
	return err
}

// startIn makes the container in a private copy of the mount namespace from, or
// of the helper's own. It returns as soon as tasks can join; what is left to
// tidy up is done meanwhile, or by the kernel when the helper ends.
func (r *run) startIn(ctx context.Context, from *os.File) (*started, error) {
	type result struct {
		started *started
		err     error
	}
	ready := make(chan result, 2)
	go func() {
		err := mountns.Do(from, func() error {
			s, err := r.start(ctx)
			if err != nil {
				return err
			}
			ready <- result{started: s}
			if r.request.Unshares("pid") {
				select {} // its first process ends with this thread
			}
			return s.container.End()
		})
		ready <- result{err: err}
	}()
	select {
	case done := <-ready:
		return done.started, done.err
	case <-r.barriers.failed: // the kernel undoes what is half done
		return nil, hook.ErrFailedElsewhere
	}
}

// start makes the container, or joins one with a name.
func (r *run) start(ctx context.Context) (*started, error) {
	if err := r.makeRunDir(); err != nil {
		return nil, err
	}
	if err := errors.Join(r.labels().Check("/sys"), r.loadFilter()); err != nil {
		return nil, err
	}
	if r.request.Named != nil {
		return r.startOrJoinNamed(ctx)
	}
	return r.startNew(ctx, nothingKept)
}

// keptFile returns the open file that keeps what a container of that image writes, or nil.
type keptFile func(image.Image) (*os.File, error)

func nothingKept(image.Image) (*os.File, error) { return nil, nil }

// startNew is the recipe: it makes a new container for the step.
func (r *run) startNew(ctx context.Context, keep keptFile) (*started, error) {
	r.debug, r.laps = nil, laps{last: r.Began}
	r.laps.add("thread")
	saver, err := r.openSaved()
	if err != nil {
		return nil, err
	}
	img, err := r.openImage(ctx)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	kept, err := keep(img)
	if err != nil {
		return nil, err
	}
	hooks, err := r.selectHooks(img)
	if err != nil {
		return nil, err
	}
	users, err := r.makeUserNamespace()
	if err != nil {
		return nil, err
	}
	b, err := r.makeBundle(img, hooks, kept, users)
	if err != nil {
		return nil, err
	}
	c, hooks, err := r.startContainer(b, hooks, users)
	if err != nil {
		return nil, err
	}
	s := r.describe(img, b, c, hooks)
	saver.prepare(s, img.Way, b.OpenTree)
	return s, nil
}

// startContainer starts the container. It adds the hooks that the bundle's content asks for.
func (r *run) startContainer(b *bundle.Bundle, hooks []hook.Hook, users *os.File) (*container.Container, []hook.Hook, error) {
	hooks, err := r.addPrograms(b, hooks)
	if err == nil {
		err = r.notePrograms(b, hooks)
	}
	if err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	c, err := container.Start(b, containerID(r.request), hooks)
	if err == nil && r.rootless() {
		users, err = os.Open("/proc/self/ns/user")
	}
	if err != nil {
		return nil, nil, err
	}
	if users != nil {
		c.Others = append(c.Others, container.Namespace{Kind: "user", File: users})
	}
	r.laps.add("container")
	return c, hooks, nil
}

// describe says of a container what its tasks will need.
func (r *run) describe(img image.Image, b *bundle.Bundle, c *container.Container, hooks []hook.Hook) *started {
	if path := r.Step.Config.Hooks.Timestamps; path != "" {
		if err := r.laps.write(path, r.Step.Node, r.request.Step, r.Began); err != nil {
			r.addDebug(fault.Line(err))
		}
	}
	return &started{
		container: c, process: b.Process(), numbers: b.Findings.Numbers,
		entrypoint: img.Meta.Config.Entrypoint, hooks: hooks,
		log: slices.Concat(foundRecords(b.Findings), r.laps.records(r.Began), r.debug),
	}
}
