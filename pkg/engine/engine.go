// SPDX-License-Identifier: Apache-2.0

// Package engine has the recipe of the helper: from a job to tasks that are in
// their container. Read it first; each step is one package.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/audit"
	"github.com/brolga-hpc/brolga/pkg/bundle"
	"github.com/brolga-hpc/brolga/pkg/bundle/rootfs"
	"github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/hook/external"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/image/source"
	"github.com/brolga-hpc/brolga/pkg/job"
	"github.com/brolga-hpc/brolga/pkg/local"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/save"
	"github.com/brolga-hpc/brolga/pkg/seccomp"
	"github.com/brolga-hpc/brolga/pkg/task"
	"github.com/brolga-hpc/brolga/pkg/trust"
	"github.com/brolga-hpc/brolga/pkg/userns"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// Engine prepares the container of one job step on one node.
type Engine struct {
	Job   job.Job
	Hooks []hook.Hook
	// Programs runs hooks that are programs.
	Programs *external.Runner
	// Began is when the work began, for the log.
	Began time.Time
	// Namespace is the mount namespace the helper was started in. It is opened
	// first of all, because libcontainer may move any thread, the main one
	// included, to another.
	Namespace *os.File
	// Saving is where it is noted that a container is saved.
	Saving *save.Pending
	// Servers are the processes that serve squashfs files.
	Servers *rootfs.Servers
	// Staying gets the processes that work for the container after this one has ended.
	Staying *Staying
	// Local is set for a container without Slurm.
	Local *local.Container

	// Stepd is the number of the step's slurmstepd, which Tell tells what to do when
	// the step has ended (external.Leave).
	Stepd int
	Tell  func(path string) error

	log   *audit.Log  // nil where there is none
	audit audit.Event // what is known of the container

	left bool // Tell was called for programs
	// adopted are the processes that work for the container.
	adopted []int
	told    []wire.Record // what the tasks tell the user
	// filter is what the site's seccomp profile says; nil where there is none.
	filter *seccomp.Filter
	// release gives the container's name free; nil where it has none.
	release func()

	// first waits for the first task.
	first func() (*task.Hello, error)

	gates gates
}

// Serve prepares the container while Slurm starts the step's tasks, lets each
// task in, and returns when none can come any more. What goes wrong is told to
// the tasks; the error returned is for the log.
func (e *Engine) Serve(ctx context.Context, tasks *task.Listener) error {
	e.openAudit()
	e.gates = e.begin()
	e.first = sync.OnceValues(tasks.Next)
	if e.Job.Request.NeedsTask() {
		return e.serveLate(ctx, tasks)
	}
	built, buildErr := e.build(ctx, nil)
	first, err := e.first()
	if err != nil {
		return ended(err)
	}
	// Under job_container/tmpfs tasks are in a namespace of their job, which
	// nobody knows before the first of them is there.
	if same, err := mountns.Same(e.Namespace, first.Namespace); err != nil || !same {
		if built != nil {
			defer built.container.Close() // libcontainer still needs it
		}
		e.Servers.Kill()
		built, buildErr = e.build(ctx, first.Namespace)
		buildErr = errors.Join(err, buildErr)
	}
	return e.answer(tasks, first, built, buildErr)
}

// serveLate is Serve for a request that depends on where the tasks are, or where
// nothing can be built twice.
func (e *Engine) serveLate(ctx context.Context, tasks *task.Listener) error {
	first, err := e.first()
	if err != nil {
		return ended(err)
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", first.Cwd.Fd()))
	if err != nil {
		return e.answer(tasks, first, nil, fmt.Errorf("find the step's working directory: %w", err))
	}
	e.Job.Request.In(cwd)
	if p := e.Job.Request.PMIx; p != nil {
		if err := p.Complete(first.Env, e.Job.Request.UID); err != nil {
			return e.answer(tasks, first, nil, err)
		}
	}
	built, err := e.build(ctx, first.Namespace)
	return e.answer(tasks, first, built, err)
}

// built is a container that tasks can join.
type built struct {
	container *container.Container
	process   *specs.Process
	numbers   []hook.Numbers
	saver     *saver // nil if it is not saved here
	// entrypoint is the image's.
	entrypoint []string
	hooks      []hook.Hook
	log        []wire.Record
}

// build makes the container in a private copy of the mount namespace from, or
// of the helper's own. It returns as soon as tasks can join; what is left to
// tidy up is done meanwhile, or by the kernel when the helper ends.
func (e *Engine) build(ctx context.Context, from *os.File) (*built, error) {
	type result struct {
		built *built
		err   error
	}
	ready := make(chan result, 2)
	go func() {
		err := mountns.Do(from, func() error {
			b, err := e.buildHere(ctx)
			if err != nil {
				return err
			}
			if e.Job.Request.Unshares("pid") {
				ready <- result{built: b}
				select {} // its first process ends with this thread
			}
			ready <- result{built: b}
			return b.container.End()
		})
		ready <- result{err: err}
	}()
	select {
	case r := <-ready:
		return r.built, r.err
	case <-e.gates.shut: // the kernel undoes what is half done
		return nil, hook.ErrShut
	}
}

func (e *Engine) buildHere(ctx context.Context) (*built, error) {
	if err := e.makeRunDir(); err != nil {
		return nil, err
	}
	if err := errors.Join(e.labels().Check("/sys"), e.loadFilter()); err != nil {
		return nil, err
	}
	if e.Job.Request.Named != nil {
		return e.buildNamed(ctx)
	}
	return e.buildNew(ctx, func(image.Image) (*os.File, error) { return nil, nil })
}

// buildNew makes a container of the step's own. keep returns where that what it
// writes is kept, or nil.
func (e *Engine) buildNew(ctx context.Context, keep func(image.Image) (*os.File, error)) (*built, error) {
	laps := laps{last: e.Began}
	laps.add("thread")
	saver, err := e.newSaver()
	if err != nil {
		return nil, err
	}
	user, told := e.user(), &[]wire.Record{}
	img, err := e.image(ctx, user, told)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	e.audit.Digest, e.audit.Way = img.Meta.Digest, string(img.Way)
	laps.add("image")
	kept, err := keep(img)
	if err != nil {
		return nil, err
	}
	users, err := e.userNamespace()
	if err != nil {
		return nil, err
	}
	step := e.Job.Request
	step.Annotations = hook.Annotations(step.Annotations, img.Meta.Config.Labels, e.Job.Config.Hooks.Labels)
	programs := e.programs(step, told)
	programs.Took = func(lap hook.Lap) { laps.hooks(lap) }
	hooks, err := e.hooks(step, programs)
	if err != nil {
		return nil, err
	}
	b, err := bundle.Create(bundle.Params{
		RunDir:     e.runDir(),
		Request:    step,
		Image:      img.File,
		Way:        img.Way,
		Squashfuse: e.Job.Config.Squashfuse,
		Sandbox:    e.Job.Config.Sandbox,
		Servers:    e.Servers,
		Join:       e.joinStep(e.firstTask),

		Squashfs: source.PolicyOf(e.Job.Config),
		Kept:     kept,
		ImageConfig: spec.Image{
			Env:        img.Meta.Config.Env,
			WorkingDir: img.Meta.Config.WorkingDir,
			Entrypoint: img.Meta.Config.Entrypoint,
			Digest:     img.Meta.Digest,
		},
		Passwd:  img.Meta.Passwd,
		Group:   img.Meta.Group,
		User:    user,
		Account: e.Job.Account,
		Groups:  e.Job.Groups,
		Hooks:   hooks,

		UserNamespace: users,
		Rootless:      e.rootless(),
		Terminal:      e.terminal(),
	})
	if err != nil {
		return nil, err
	}
	e.label(b)
	laps.hooks(b.Found.Laps...)
	laps.add("bundle")
	more, err := external.Programs(b.Found.Programs, programs)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	hooks = append(hooks, more...)
	if err := e.leave(b, hooks); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	c, err := container.Start(b, containerID(e.Job.Request), hooks)
	if err != nil {
		return nil, err
	}
	if e.rootless() {
		if users, err = os.Open("/proc/self/ns/user"); err != nil {
			return nil, err
		}
	}
	if users != nil {
		c.Others = append(c.Others, container.Namespace{Kind: "user", File: users})
	}
	laps.add("container")
	if path := e.Job.Config.Hooks.Timestamps; path != "" {
		if err := laps.write(path, e.Job.Node, step.Step, e.Began); err != nil {
			*told = append(*told, wire.Record{Key: "debug", Value: fault.Line(err)})
		}
	}
	made := &built{c, b.Process(), b.Found.Numbers, nil, img.Meta.Config.Entrypoint, hooks, slices.Concat(tell(b.Found), laps.records(e.Began), *told)}
	if saver != nil {
		saver.saves(made, img.Way, b.OpenTree)
	}
	return made, nil
}

func containerID(r request.Request) string { return "step-" + r.Step }

// leave notes for slurmstepd the programs that run after the end of the container.
// Under job_container/tmpfs there are two of them, of which one is used.
func (e *Engine) leave(b *bundle.Bundle, hooks []hook.Hook) error {
	if e.Local != nil {
		return external.Refuse(hooks)
	}
	if e.left {
		return nil
	}
	state := specs.State{Version: specs.Version, ID: containerID(e.Job.Request), Bundle: b.Dir, Annotations: b.Spec.Annotations}
	path, err := external.Leave(external.Notes(), hooks, state, e.Stepd)
	if path == "" || err != nil {
		return err
	}
	e.left = true
	return e.Tell(path)
}

// label says in the container what steps need to know that join it.
func (e *Engine) label(b *bundle.Bundle) {
	r, p := e.Job.Request, b.Process()
	l := container.Label{Node: e.Job.Node, Step: r.Step, UID: r.UID, Image: r.Image.String(), Workdir: p.Cwd, Env: p.Env, Kinds: r.Unshare}
	if r.Named != nil {
		l.Name, l.Job = r.Named.Name, r.Named.Job
	}
	if r.RemapRoot {
		l.Kinds = slices.Concat(l.Kinds, []string{"user"})
	}
	if text, err := l.Marshal(); err == nil {
		b.Label(text)
	}
}

// image opens the image of the step. Told gets what took time.
func (e *Engine) image(ctx context.Context, user identity.User, told *[]wire.Record) (image.Image, error) {
	if e.Local != nil {
		return e.Local.Open()
	}
	return image.Open(ctx, image.Source{
		Config:     e.Job.Config,
		ConfigPath: e.Job.ConfigPath,
		User:       user,
		Env:        e.Job.Env,
		NoPull:     e.Job.Request.Pull == "never",
		Platform:   e.Job.Request.Platform,
		Join:       e.joinStep(e.firstTask),
		Limits:     e.limitConversions,
		Tell:       func(line string) { *told = append(*told, wire.Record{Key: "debug", Value: line}) },
	}, e.Job.Request.Image)
}

// makeRunDir makes the directory of locks and mount points, where no other user may do
// anything: below one of theirs root would open what they put there.
func (e *Engine) makeRunDir() error {
	if e.rootless() {
		return nil // it is made with the container
	}
	if err := trust.MakeAll(e.Job.Config.RunDir, 0o755); err != nil {
		return fault.WithHint(fmt.Errorf("run_dir %s: %w", e.Job.Config.RunDir, err),
			"an administrator sets run_dir to a directory below those that are root's alone")
	}
	return nil
}

func (e *Engine) rootless() bool { return e.Local != nil && e.Local.Rootless }

func (e *Engine) terminal() string {
	if e.Local == nil {
		return ""
	}
	return e.Local.Terminal
}

// runDir is where the bundle is mounted.
func (e *Engine) runDir() string {
	if e.rootless() {
		return config.ContainerDir()
	}
	return e.Job.Config.RunDir
}

// hooks returns the hooks for the step, those of the site's files last.
func (e *Engine) hooks(step request.Request, programs external.Options) ([]hook.Hook, error) {
	described, err := external.Load(e.Job.Config.Hooks.Directories)
	return hook.Select(slices.Concat(e.Hooks, external.Hooks(described, programs)), step), err
}

// programs says how hooks that are programs run; told gets their log.
func (e *Engine) programs(step request.Request, told *[]wire.Record) external.Options {
	return external.Options{
		Runner:  e.Programs,
		Timeout: time.Duration(e.Job.Config.Hooks.Timeout),
		Tell:    func(line string) { *told = append(*told, wire.Record{Key: "debug", Value: line}) },
		Verbose: step.Verbosity == request.Verbose,
	}
}

// tell returns what hooks have to say.
func tell(found hook.Found) []wire.Record {
	var all []wire.Record
	for _, text := range found.Warnings {
		all = append(all, wire.Record{Key: "warning", Value: fault.Printable(text)})
	}
	for _, text := range found.Notes {
		all = append(all, wire.Record{Key: "debug", Value: fault.Printable(text)})
	}
	return all
}

// userNamespace makes the namespace of a request that remaps root, or none.
func (e *Engine) userNamespace() (*os.File, error) {
	r := e.Job.Request
	if !r.RemapRoot {
		return nil, nil
	}
	return userns.Make(r.UID, r.GID, config.LauncherPath(), "hold")
}

// user is the job's user.
func (e *Engine) user() identity.User {
	r, a := e.Job.Request, e.Job.Account
	return identity.User{UID: r.UID, GID: r.GID, Groups: r.Groups, Name: a.Name, Home: a.Home}
}
