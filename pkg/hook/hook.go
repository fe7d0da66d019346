// SPDX-License-Identifier: Apache-2.0

// Package hook defines what a site or vendor adds to a container: a Go package
// under hooks/ that runs inside the helper, without a process of its own.
//
// A hook has a name, a condition and the stages whose methods it has, in this order:
//
//   - An [Editor] changes the OCI runtime specification before anything is mounted.
//   - An [Inspector] is for what depends on the files of the image: they can be looked
//     at, and covered with files of the host, before anything else of the host is
//     mounted (inspect.go).
//   - An [Actor] runs in the helper, as root on the host, once libcontainer has made
//     the container's namespaces and mounts.
//   - A [Starter] runs there when the container is complete.
//   - A [SidecarStarter] leaves a process in it for the step.
//   - A [BarrierHook] holds the tasks of the step back when all the others are done.
//
// As root, none of them executes a program of the image or follows a path of it.
//
// Programs that others wrote as OCI hooks are hooks, too: package external.
package hook

import (
	"fmt"
	"maps"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/label"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/seccomp"
)

// Hook is what every hook is. What it does is in the methods of the stages that it
// has besides.
type Hook interface {
	// Name is what messages and settings call the hook.
	Name() string
	// Describe says in words when the hook applies and what it does, for
	// "brolga hooks".
	Describe() Description
	// Wanted tells whether the hook applies to the step.
	Wanted(r request.Request) bool
}

// Editor is a hook that changes the specification.
type Editor interface {
	Hook
	// Edit is pure: it does no I/O.
	Edit(spec *specs.Spec, r request.Request) error
}

// Actor is a hook that acts on the container before its root is switched to the
// rootfs (the OCI hook "createRuntime").
type Actor interface {
	Hook
	Runtime(state *specs.State) error
}

// Starter is a hook that acts once the container is complete, its root
// switched, and before any task is in it (the OCI hook "poststart").
type Starter interface {
	Hook
	Started(state *specs.State) error
}

// SidecarStarter is a hook that has a process in the container for as long as the step
// has tasks there.
type SidecarStarter interface {
	Hook
	// StartSidecar starts the process and returns when it can do its work. No task runs
	// the user's program yet.
	StartSidecar(step Step) (Sidecar, error)
}

// Step is what a [SidecarStarter] is told.
type Step struct {
	Request request.Request
	User    identity.User
	// Env and Dir are what a task begins with, before Slurm adds what is different
	// for each; Umask is the step's.
	Env   []string
	Dir   string
	Umask int
	// Filter is the site's, of system calls, that the process has to put on; nil is
	// none.
	Filter *seccomp.Filter
	// Labels are the site's, that a process has to get when it is executed.
	Labels label.Labels
	// Inside runs a function on a thread in the namespaces of the container; a
	// process that it starts is in all of them.
	Inside func(f func() error) error
	// Adopt moves a process into the cgroups of the step.
	Adopt func(pid int) error
}

// Sidecar is a process of a [SidecarStarter].
type Sidecar interface {
	// Task tells it of a task, by its process on the host, which exists.
	Task(pid int) error
}

// Description is a hook in words: "batch steps", "mounts the directory of ...".
type Description struct{ Stage, When, Effect string }

// The stages of hooks in Go, as [Description] names them.
const (
	AtEdit    = "edit"
	AtInspect = "inspect"
	AtRuntime = "createRuntime"
	AtTask    = "first task"
	AtBarrier = "barrier"
)

// Select returns the hooks that apply to the step, in order.
func Select(hooks []Hook, r request.Request) []Hook {
	var wanted []Hook
	for _, h := range hooks {
		if h.Wanted(r) {
			wanted = append(wanted, h)
		}
	}
	return wanted
}

// Edit lets each editor change the specification.
func Edit(hooks []Hook, spec *specs.Spec, r request.Request) error {
	for _, h := range hooks {
		e, ok := h.(Editor)
		if !ok {
			continue
		}
		if err := e.Edit(spec, r); err != nil {
			return fmt.Errorf("hook %s: %w", h.Name(), err)
		}
	}
	return nil
}

// Annotations returns the step's annotations and, of the image's labels, those
// whose name matches a pattern of the site's. The step's own win. An image is
// made by anyone: no label of it switches a hook on that the site does not name.
func Annotations(step, labels map[string]string, patterns []string) map[string]string {
	if len(patterns) == 0 {
		return step
	}
	all := map[string]string{}
	for name, value := range labels {
		for _, pattern := range patterns {
			if ok, _ := path.Match(pattern, name); ok {
				all[name] = value
			}
		}
	}
	maps.Copy(all, step)
	return all
}
