// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/bundle"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/hook/external"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// selectHooks returns the hooks that apply to the step and the image, those of the site's
// files last.
func (r *run) selectHooks(img image.Image) ([]hook.Hook, error) {
	step := r.request
	step.Annotations = r.annotations(img)
	described, err := external.Load(r.Step.Config.Hooks.Directories)
	return hook.Select(slices.Concat(r.Hooks, external.Hooks(described, r.programOptions())), step), err
}

// annotations are the step's, with those labels of the image that the site lets be some.
func (r *run) annotations(img image.Image) map[string]string {
	return hook.Annotations(r.request.Annotations, img.Meta.Config.Labels, r.Step.Config.Hooks.Labels)
}

// programOptions says how hooks that are programs run.
func (r *run) programOptions() external.Options {
	return external.Options{
		Runner:  r.Programs,
		Timeout: time.Duration(r.Step.Config.Hooks.Timeout),
		Tell:    r.addDebug,
		Verbose: r.request.Verbosity == request.Verbose,
		Took:    func(lap hook.Lap) { r.laps.hooks(lap) },
	}
}

// addPrograms adds the programs of CDI devices, which are known with the bundle.
func (r *run) addPrograms(b *bundle.Bundle, hooks []hook.Hook) ([]hook.Hook, error) {
	more, err := external.Programs(b.Findings.Programs, r.programOptions())
	return slices.Concat(hooks, more), err
}

// notePrograms notes for slurmstepd the programs that run after the end of the container.
// Under job_container/tmpfs there are two containers, of which one is used.
func (r *run) notePrograms(b *bundle.Bundle, hooks []hook.Hook) error {
	if r.Local != nil {
		return external.Refuse(hooks)
	}
	if r.programsNoted {
		return nil
	}
	state := specs.State{Version: specs.Version, ID: containerID(r.request), Bundle: b.Dir, Annotations: b.Spec.Annotations}
	path, err := external.Leave(external.Notes(), hooks, state, r.Stepd)
	if path == "" || err != nil {
		return err
	}
	r.programsNoted = true
	return r.Tell(path)
}

// foundRecords returns what hooks have to say.
func foundRecords(found hook.Findings) []wire.Record {
	var all []wire.Record
	for _, text := range found.Warnings {
		all = append(all, wire.Record{Key: "warning", Value: fault.Printable(text)})
	}
	for _, text := range found.Notes {
		all = append(all, wire.Record{Key: "debug", Value: fault.Printable(text)})
	}
	return all
}
