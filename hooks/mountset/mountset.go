// SPDX-License-Identifier: Apache-2.0

// Package mountset gives containers sets of files, devices and variables that the
// site has put together: a network's libfabric with its providers, UCX, Slurm's own
// commands.
//
// Condition, for each set ([[mount_set]] in the site's configuration): the user asks
// for it (--container-mount-set) or the step has its annotation; or the site wants it
// always, or for images that have one of its libraries (use).
//
// Libraries of a set replace the image's of the same name unless those are newer, and
// are added where the image has none (package replace). A container shows nothing
// else of the host than what the site lists.
package mountset

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/hook/replace"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// Hook implements hook.CachedInspector.
type Hook struct{}

// Name implements hook.Hook.
func (Hook) Name() string { return "mountset" }

// Describe implements hook.Hook.
func (Hook) Describe() hook.Description {
	return hook.Description{
		Stage:  hook.AtInspect,
		When:   "--" + option.MountSet + ", an annotation, or the site wants it",
		Effect: "shows the site's sets of libraries, mounts and devices",
	}
}

// Describe says in words when one set is shown and what it has.
func Describe(s config.MountSet) hook.Description {
	when := []string{"--" + option.MountSet + "=" + s.Name}
	if s.Annotation != "" {
		when = append(when, "annotation "+s.Annotation)
	}
	switch s.Use {
	case config.UseAlways:
		when = append(when, "always")
	case config.UseImage:
		when = append(when, "an image with "+strings.Join(s.Libraries, " or "))
	}
	what := slices.Concat(s.Libraries, s.Mounts, s.Devices, s.Env)
	return hook.Description{Stage: hook.AtInspect, When: strings.Join(when, ", "), Effect: "shows " + strings.Join(what, ", ")}
}

// Wanted implements hook.Hook.
func (Hook) Wanted(r request.Request) bool { return len(active(r)) > 0 }

// active returns the sets that the step may get, as far as that does not depend on the
// image.
func active(r request.Request) []request.MountSet {
	var all []request.MountSet
	for _, s := range r.MountSets {
		name, value, _ := strings.Cut(s.Annotation, "=")
		given, annotated := r.Annotations[name]
		annotated = annotated && name != ""
		switch {
		case annotated && given == value:
			s.Asked = true
		case annotated && !s.Asked:
			continue
		}
		if s.Asked || s.Use == config.UseAlways || s.Use == config.UseImage {
			all = append(all, s)
		}
	}
	return all
}

// Inputs implements hook.CachedInspector.
func (Hook) Inputs(spec *specs.Spec, r request.Request) []string {
	text, _ := json.Marshal(active(r)) // plain data
	return []string{string(text), replace.SearchPath(spec.Process.Env), providerPath(spec.Process.Env)}
}

// Inspect shows the sets. One that does not fit is an error if the user asked for it,
// and left out with a warning otherwise.
func (Hook) Inspect(files *hook.Image, spec *specs.Spec, r request.Request) (hook.Findings, error) {
	var all hook.Findings
	var errs []error
	for _, s := range active(r) {
		found, err := show(files, spec, s)
		if err != nil && s.Asked {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, err))
		} else if err != nil {
			found.Warnings = []string{fmt.Sprintf("mount set %s is left out: %s", s.Name, fault.Line(err))}
		}
		all.Mounts = append(all.Mounts, found.Mounts...)
		all.Devices = append(all.Devices, found.Devices...)
		all.Env = append(all.Env, found.Env...)
		all.Warnings = append(all.Warnings, found.Warnings...)
		all.Notes = append(all.Notes, found.Notes...)
		all.Sources = append(all.Sources, found.Sources...)
	}
	return all, errors.Join(errs...)
}

const refuse = "--" + option.NoMountSet + " leaves it out"

// show shows one set.
func show(files *hook.Image, spec *specs.Spec, s request.MountSet) (hook.Findings, error) {
	p := replace.New(files, spec.Process.Env, replace.Purposes{}, "mount set "+s.Name, refuse)
	defer p.Close()
	if !s.Asked && s.Use == config.UseImage {
		applies, err := hasLibrary(p, s)
		if err != nil || !applies {
			return hook.Findings{Sources: p.Host.Looked()}, err
		}
	}
	if len(s.Libraries) > 0 {
		err := p.Complete(s.Libraries)
		if errors.Is(err, replace.ErrNoGNU) && !s.Asked {
			return hook.Findings{Sources: p.Host.Looked()}, nil
		}
		if err != nil {
			return hook.Findings{Sources: p.Host.Looked()}, err
		}
	}
	found := p.Findings()
	found.Devices, found.Env = s.Devices, s.Env
	for _, m := range s.Shows {
		target := m.Target
		if rest, ok := strings.CutPrefix(target, "/"+request.ProviderPath); ok {
			target = providers(p, spec.Process.Env, s) + rest
		}
		options := append([]string{bundlespec.Optional}, m.Flags...)
		found.Mounts = append(found.Mounts, bundlespec.Bind(m.Source, target, options...))
	}
	found.Notes = append(found.Notes, fmt.Sprintf("mount set %s: shown", s.Name))
	return found, p.CarryOut()
}

// hasLibrary tells whether the image has one of the set's libraries.
func hasLibrary(p *replace.Plan, s request.MountSet) (bool, error) {
	libraries, err := p.Host.All(s.Libraries)
	if err != nil {
		return false, err
	}
	for _, h := range libraries {
		if p.Image.Find(h.Asked()) != nil {
			return true, nil
		}
	}
	return false, nil
}

// providerPath returns the directory that a container's environment names for the
// providers of libfabric (fabric(7)), or "".
func providerPath(env []string) (dir string) {
	for _, variable := range env {
		if value, ok := strings.CutPrefix(variable, "FI_PROVIDER_PATH="); ok {
			dir = value
		}
	}
	return dir
}

// providers returns where the container's libfabric looks for its providers: where a
// variable says, or in a directory beside where it was installed, which is compiled
// into it.
func providers(p *replace.Plan, env []string, s request.MountSet) string {
	if dir := providerPath(append(env, s.Env...)); path.IsAbs(dir) {
		return path.Clean(dir)
	}
	for _, name := range []string{"libfabric.so.1", "libfabric.so.2"} {
		if at := p.Serves(name); at != "" {
			return path.Join(path.Dir(at), "libfabric")
		}
	}
	return "/usr/lib"
}
