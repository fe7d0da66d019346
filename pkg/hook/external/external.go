// SPDX-License-Identifier: Apache-2.0

// Package external runs OCI hooks: programs of the host that a file describes
// in the format of oci-hooks(5), schema 1.0.0, as Podman and CRI-O read it.
//
// [Load] reads the files, [Hooks] makes a [hook.Hook] of each stage of each
// file, in the order in which the runtime specification runs them. docs/hooks.md
// tells administrators about stages and conditions.
//
// # Privilege
//
// A program runs as root on the host, so only root may be able to change it, the
// file that names it, and all directories above. It gets the container's state on
// its standard input, the environment of its file and no other, no descriptor of
// the helper's, and a time limit. Its path is the host's at every stage, the image
// is never looked at. Annotations in the state come from the user.
package external

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// Runner runs programs until it is stopped.
type Runner struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
}

// NewRunner returns a runner.
func NewRunner() *Runner {
	r := &Runner{}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	return r
}

// Stop kills the programs that run, with their children, and returns when they
// are gone. The kernel would kill the programs alone when this process ends.
func (r *Runner) Stop() {
	r.cancel(errors.New("the step has ended"))
	r.running.Wait()
}

func (r *Runner) run(limit time.Duration, c command.Cmd) error {
	r.running.Add(1)
	defer r.running.Done()
	ctx, cancel := context.WithTimeoutCause(r.ctx, limit, fmt.Errorf("killed after %s, its time limit", limit))
	defer cancel()
	return command.Run(ctx, c)
}

// Options say how programs are run.
type Options struct {
	Runner *Runner
	// Timeout is the limit of those that set none.
	Timeout time.Duration
	// Tell gets a line on each program that ran and those that it wrote.
	Tell func(line string)
	// Took, if any, gets what each program that ran took.
	Took func(lap hook.Lap)
	// Verbose puts all that a failed program wrote into the error.
	Verbose bool
}

// Hooks returns the hooks of the descriptors, ordered by stage first.
func Hooks(all []Descriptor, o Options) []hook.Hook {
	var hooks []hook.Hook
	for _, s := range stages {
		for _, d := range all {
			if !slices.Contains(d.Stages, s.name) {
				continue
			}
			p := program{d, s.name, o}
			switch s.name {
			case "poststart":
				hooks = append(hooks, starter{p})
			case "poststop":
				hooks = append(hooks, stopper{p})
			default:
				hooks = append(hooks, actor{p})
			}
		}
	}
	return hooks
}

// Programs returns hooks for programs that something else than a descriptor names;
// they keep the same rules.
func Programs(all []hook.Program, o Options) ([]hook.Hook, error) {
	var descriptors []Descriptor
	var errs []error
	for _, p := range all {
		d := Descriptor{Path: p.Origin, Hook: p.Hook, Stages: []string{p.Stage}}
		if err := errors.Join(d.checkHook(), d.checkStages()); err != nil {
			errs = append(errs, fmt.Errorf("hook %s of %s: %w", p.Hook.Path, p.Origin, err))
		}
		descriptors = append(descriptors, d)
	}
	return Hooks(descriptors, o), fault.WithHint(errors.Join(errs...), theSites)
}

// program is a descriptor at one of its stages.
type program struct {
	Descriptor
	stage string
	o     Options
}

// Name implements hook.Hook.
func (p program) Name() string { return p.Path }

// Describe implements hook.Hook.
func (p program) Describe() hook.Description {
	effect := "runs " + strings.Join(append([]string{p.Hook.Path}, p.args()...), " ")
	return hook.Description{Stage: p.stage, When: p.When.String(), Effect: effect}
}

// args are the arguments without the program's name.
func (p program) args() []string { return p.Hook.Args[min(1, len(p.Hook.Args)):] }

// Wanted implements hook.Hook.
func (p program) Wanted(r request.Request) bool { return p.When.holds(r) }

// Edit notes the hook in the specification, for those who read that.
func (p program) Edit(spec *specs.Spec, _ request.Request) error {
	if spec.Hooks == nil {
		spec.Hooks = &specs.Hooks{}
	}
	list := map[string]*[]specs.Hook{
		"prestart":        &spec.Hooks.Prestart, //nolint:staticcheck // deprecated, and much used
		"createRuntime":   &spec.Hooks.CreateRuntime,
		"createContainer": &spec.Hooks.CreateContainer,
		"poststart":       &spec.Hooks.Poststart,
		"poststop":        &spec.Hooks.Poststop,
	}[p.stage]
	*list = append(*list, p.Hook)
	return nil
}

// actor is a program that runs before the container's root is switched.
type actor struct{ program }

// Runtime implements hook.Actor: it runs the program on the host or, for
// createContainer, in the namespaces of the container, where the host's files are
// still at their places beside the container's root.
func (a actor) Runtime(state *specs.State) error {
	if a.stage == "createContainer" {
		return inContainer(state.Pid, func() error { return a.run(state) })
	}
	return a.run(state)
}

// starter is a program that runs when the container is complete.
type starter struct{ program }

// Started implements hook.Starter.
func (s starter) Started(state *specs.State) error { return s.run(state) }

// inContainer runs f on a thread in the namespaces of the container whose first
// process is given, except that of processes: the state has the host's numbers.
func inContainer(pid int, f func() error) error {
	open := func(kind string) (*os.File, error) { return os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)) }
	mounts, err := open("mnt")
	if err != nil {
		return err
	}
	defer mounts.Close()
	var others []*os.File
	for _, kind := range []string{"net", "ipc", "uts"} {
		ns, err := open(kind)
		if err != nil {
			return err
		}
		defer ns.Close()
		own, err := os.Open("/proc/thread-self/ns/" + kind)
		if err != nil {
			return err
		}
		same, err := mountns.Same(own, ns)
		own.Close()
		if err != nil {
			return err
		}
		if !same { // without root the host's may not be joined
			others = append(others, ns)
		}
	}
	return mountns.Join(mounts, func() error {
		for _, ns := range others {
			if err := unix.Setns(int(ns.Fd()), 0); err != nil {
				return fmt.Errorf("join %s: %w", ns.Name(), err)
			}
		}
		return f()
	})
}

// run runs the program in the namespaces of the calling thread.
func (p program) run(state *specs.State) error {
	if err := trust.Check(p.Hook.Path); err != nil {
		return p.failed(fault.WithHint(withHint(err), theSites), "")
	}
	stdin, err := json.Marshal(state)
	if err != nil {
		return p.failed(err, "")
	}
	limit := p.o.Timeout
	if t := p.Hook.Timeout; t != nil {
		limit = time.Duration(*t) * time.Second
	}
	began, out := time.Now(), &output{}
	err = p.o.Runner.run(limit, command.Cmd{
		Path:   p.Hook.Path,
		Name:   strings.Join(p.Hook.Args[:min(1, len(p.Hook.Args))], ""),
		Args:   p.args(),
		Env:    p.Hook.Env,
		Dir:    state.Bundle,
		Stdin:  bytes.NewReader(stdin),
		Stdout: out,
		Stderr: out,
	})
	if err != nil {
		return p.failed(fault.WithHint(err, p.hint()), out.String())
	}
	p.tell(time.Since(began), out.String())
	return nil
}

// theSites is what users can do about a hook that fails.
const theSites = "the hook is the site's: tell its administrator"

func (p program) hint() string {
	if p.o.Verbose {
		return theSites
	}
	return theSites + "; --" + option.Verbose + " shows all that it wrote"
}

func (p program) failed(err error, output string) error {
	err = fmt.Errorf("%s: %w", p.stage, err)
	if p.o.Verbose && output != "" {
		err = fmt.Errorf("%w; it wrote: %s", err, output)
	}
	return err
}

func (p program) tell(took time.Duration, output string) {
	if p.o.Took != nil {
		p.o.Took(hook.Lap{Name: p.Name() + "@" + p.stage, Ended: time.Now(), Took: took})
	}
	p.o.Tell(fmt.Sprintf("hook %s ran at %s for %.1f ms", p.Name(), p.stage, float64(took.Microseconds())/1e3))
	for line := range strings.Lines(output) {
		p.o.Tell(fmt.Sprintf("hook %s: %s", p.Name(), strings.TrimRight(line, "\n")))
	}
}

// outputLimit is how much is kept of what one program writes.
const outputLimit = 4 << 10

// output keeps the first of what a program writes to both its descriptors.
type output struct {
	text []byte
	cut  bool
}

func (o *output) Write(p []byte) (int, error) {
	keep := min(len(p), outputLimit-len(o.text))
	o.text = append(o.text, p[:keep]...)
	o.cut = o.cut || keep < len(p)
	return len(p), nil
}

// String returns what is kept, without what a terminal would act on.
func (o *output) String() string {
	var lines []string
	for line := range strings.Lines(strings.TrimSpace(string(o.text))) {
		lines = append(lines, fault.Printable(strings.TrimRight(line, "\r\n")))
	}
	text := strings.Join(lines, "\n")
	if o.cut {
		text += "\n(and more)"
	}
	return text
}
