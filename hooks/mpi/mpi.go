// SPDX-License-Identifier: Apache-2.0

// Package mpi replaces the MPI libraries of an image by the host's, which know the
// host's network.
//
// Condition: the user asks for it (--container-mpi) or the site wants it for all
// images (container.mpi). Settings: [[mpi]] in the site's configuration.
//
// Each library of the image is covered with the host's of the same purpose, if their
// ABIs fit, and what the host's need comes along (package replace). A container shows
// nothing else of the host than these files, and what the site lists as mounts and
// devices.
package mpi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
func (Hook) Name() string { return "mpi" }

// Describe implements hook.Hook.
func (Hook) Describe() hook.Description {
	return hook.Description{
		Stage:  hook.AtInspect,
		When:   "--" + option.MPI + ", or the site wants it",
		Effect: "puts the host's MPI libraries in place of the image's",
	}
}

// Describe says in words when one MPI of the host is used, and which it is. A site may
// want one for all images.
func Describe(m config.MPI, forAll bool) hook.Description {
	when := "--" + option.MPI + "=" + m.Name
	if forAll {
		when += ", all images that it fits"
	}
	what := slices.Concat(m.Libraries, m.Dependencies, m.Modules, m.Mounts, m.Devices, m.Env)
	return hook.Description{Stage: hook.AtInspect, When: when, Effect: "shows " + strings.Join(what, ", ")}
}

// Wanted implements hook.Hook.
func (Hook) Wanted(r request.Request) bool { return r.MPI != nil }

// Inputs implements hook.CachedInspector.
func (Hook) Inputs(spec *specs.Spec, r request.Request) []string {
	text, _ := json.Marshal(r.MPI) // plain data
	return []string{string(text), replace.SearchPath(spec.Process.Env)}
}

// Inspect replaces the libraries. An image that the site's wish does not fit keeps
// its own.
func (Hook) Inspect(files *hook.Image, spec *specs.Spec, r request.Request) (hook.Findings, error) {
	p := plan{replace.New(files, spec.Process.Env, purposes, "MPI "+r.MPI.Name, refuse), *r.MPI}
	p.Together = core
	defer p.Close()
	err := p.make()
	switch {
	case err == nil:
		return p.found(), p.CarryOut()
	case r.MPI.Asked:
		return hook.Findings{}, fmt.Errorf("%s: %w", r.MPI.Name, err)
	case errors.Is(err, errNoMPI):
		return hook.Findings{Sources: p.Host.Looked()}, nil
	}
	return hook.Findings{
		Warnings: []string{fmt.Sprintf("the image's own MPI is used: MPI %s: %s", r.MPI.Name, fault.Line(err))},
		Sources:  p.Host.Looked(),
	}, nil
}

// refuse is what users can do where the host's MPI does not fit.
const refuse = "--" + option.NoMPI + " runs the image's own MPI"

// errNoMPI means that there is nothing to replace.
var errNoMPI = fault.WithHint(errors.New("no MPI library was found in the image"),
	"run ldconfig when the image is built, so that its ld.so.cache knows the library, or leave --"+option.MPI+" out")

// plan is what is going to be done.
type plan struct {
	*replace.Plan
	stack request.MPI
}

// found says what the container gets besides the libraries.
func (p *plan) found() hook.Findings {
	found := p.Findings()
	found.Devices, found.Env = p.stack.Devices, p.stack.Env
	for _, m := range p.stack.Modules {
		found.Mounts = append(found.Mounts, bundlespec.Bind(m.Source, m.Target, "ro"))
	}
	for _, m := range p.stack.Shows {
		options := append([]string{bundlespec.Optional}, m.Flags...)
		found.Mounts = append(found.Mounts, bundlespec.Bind(m.Source, m.Target, options...))
	}
	return found
}

// make decides everything and changes nothing.
func (p *plan) make() error {
	if err := p.replaceLibraries(); err != nil {
		return err
	}
	if err := p.Complete(p.stack.Dependencies); err != nil {
		return err
	}
	for _, m := range p.stack.Modules {
		if err := p.Modules(m.Source); err != nil {
			return err
		}
	}
	return nil
}

// replaceLibraries covers the image's MPI libraries that fit.
func (p *plan) replaceLibraries() error {
	libraries, err := p.Host.All(p.stack.Libraries)
	if err != nil {
		return err
	}
	var refused, doubtful []string
	for _, h := range libraries {
		for _, c := range p.Image.WithPurpose(h) {
			verdict, why := replace.Compare(p.stack.Check, h.Version, c.Version)
			text := fmt.Sprintf("the host's %s for the image's %s: %s", h, c, why)
			switch verdict {
			case replace.Refuses:
				refused = append(refused, "cannot use "+text)
				continue
			case replace.Doubts:
				doubtful = append(doubtful, "uses "+text)
			}
			p.Cover(c, h)
		}
	}
	if err := p.Err(); err != nil {
		return err
	}
	switch {
	case p.Covers() == 0 && len(refused) == 0:
		return errNoMPI
	case p.Covers() == 0:
		return fault.WithHint(errors.New(refused[0]), refuse+"; otherwise use an image whose MPI has the host's ABI")
	}
	// The libraries of one MPI have one version: the first speaks for all.
	for _, texts := range [][]string{refused, doubtful} {
		if len(texts) > 0 {
			p.Warn("%s", texts[0])
		}
	}
	p.warnMixed(libraries)
	return nil
}

// warnMixed warns of libraries of the image that stay while those they belong to
// are replaced.
func (p *plan) warnMixed(libraries []*replace.Library) {
	replaced := map[string]bool{}
	for _, h := range libraries {
		replaced[h.Purpose] = true
	}
	for _, purpose := range slices.Sorted(maps.Keys(purposes.Names)) {
		if replaced[purpose] || !replaced[purposeC] {
			continue
		}
		for _, c := range p.Image.Named(purposes.Names[purpose], libraries[0].Version) {
			p.Warn("has no library for %s: the image's %s may not fit it", purpose, c)
		}
	}
}
