// SPDX-License-Identifier: Apache-2.0

// Package mpi replaces the MPI libraries of an image by the host's, which know the
// host's network.
//
// Condition: the user asks for it (--container-mpi) or the site wants it for all
// images (container.mpi). Settings: [[mpi]] in the site's configuration.
//
// The libraries of the image are found as the loader finds them, by its cache, the
// image's LD_LIBRARY_PATH and the usual directories, and each is covered with the
// host's library of the same purpose, so that it is the host's under whatever name
// or path a program asks for it. Before anything is covered, the ABIs are compared
// (abi.go), and what the host's libraries need is looked for: what the image lacks
// is added beside its C library, and versions of symbols that it does not have are
// an error now instead of one of the loader's in each task.
//
// A container shows nothing else of the host than these files, and what the site
// lists as mounts and devices. Nothing of the image is executed, files of the image
// are read as the user, and no link leads out of it.
package mpi

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// Hook implements hook.Inspector.
type Hook struct{}

// Name implements hook.Hook.
func (Hook) Name() string { return "mpi" }

// Describe implements hook.Hook.
func (Hook) Describe() hook.Description {
	return hook.Description{
		Moment: hook.AtInspect,
		When:   "--" + option.MPI + ", or the site wants it",
		Effect: "puts the host's MPI libraries in place of the image's",
	}
}

// Wanted implements hook.Hook.
func (Hook) Wanted(r request.Request) bool { return r.MPI != nil }

// Edit implements hook.Hook; all depends on what is in the image.
func (Hook) Edit(*specs.Spec, request.Request) error { return nil }

// Runtime implements hook.Hook; there is nothing to do.
func (Hook) Runtime(*specs.State) error { return nil }

// Inspect replaces the libraries. An image that the site's wish does not fit keeps
// its own.
func (Hook) Inspect(files hook.Image, spec *specs.Spec, r request.Request) (hook.Found, error) {
	image := openImage(files, spec.Process.Env)
	defer image.close()
	p := plan{stack: *r.MPI, image: image, host: &host{}, adds: map[string]*lib{}}
	err := p.make()
	switch {
	case err == nil:
		return p.found(), p.carryOut(files)
	case r.MPI.Asked:
		return hook.Found{}, fmt.Errorf("%s: %w", r.MPI.Name, err)
	case errors.Is(err, errNoMPI):
		return hook.Found{}, nil
	}
	return hook.Found{Warnings: []string{fmt.Sprintf("the image's own MPI is used: MPI %s: %s", r.MPI.Name, fault.Line(err))}}, nil
}

// found says what the container gets besides the libraries.
func (p *plan) found() hook.Found {
	found := hook.Found{Devices: p.stack.Devices, Env: p.stack.Env, Warnings: p.warnings, Notes: p.notes}
	for _, m := range p.stack.Shows {
		options := append([]string{bundlespec.Optional}, m.Flags...)
		found.Mounts = append(found.Mounts, bundlespec.Bind(m.Source, m.Target, options...))
	}
	return found
}

func (p *plan) carryOut(files hook.Image) error {
	var errs []error
	for _, c := range p.covers {
		errs = append(errs, files.Cover(c.image.file, c.host.path))
	}
	for name, h := range p.adds {
		errs = append(errs, files.Add(h.path, p.directory+"/"+name))
	}
	return errors.Join(errs...)
}

// errNoMPI means that there is nothing to replace.
var errNoMPI = fault.WithHint(errors.New("no MPI library was found in the image"),
	"run ldconfig when the image is built, so that its ld.so.cache knows the library, or leave --"+option.MPI+" out")

// plan is what is going to be done.
type plan struct {
	stack request.MPI
	image *image
	host  *host
	// covers are files of the image to be covered, adds the names that are to be
	// added to directory.
	covers    []cover
	adds      map[string]*lib
	directory string
	// libc is the image's C library.
	libc *lib
	// used are the host's libraries that the container gets.
	used            []*lib
	warnings, notes []string
}

type cover struct{ image, host *lib }

// make decides everything and changes nothing.
func (p *plan) make() error {
	if err := p.replaceLibraries(); err != nil {
		return err
	}
	if err := p.findDirectory(); err != nil {
		return err
	}
	if err := p.replaceDependencies(); err != nil {
		return err
	}
	for i := 0; i < len(p.used); i++ { // it grows meanwhile
		if err := p.satisfy(p.used[i]); err != nil {
			return err
		}
	}
	return p.image.err
}

// replaceLibraries covers the image's MPI libraries that fit.
func (p *plan) replaceLibraries() error {
	libraries, err := p.host.all(p.stack.Libraries)
	if err != nil {
		return err
	}
	var refused, doubtful []string
	for _, h := range libraries {
		for _, c := range p.image.withPurpose(h) {
			verdict, why := compare(p.stack.Check, h.Version, c.Version)
			text := fmt.Sprintf("the host's %s for the image's %s: %s", h, c, why)
			switch verdict {
			case refuses:
				refused = append(refused, "cannot use "+text)
				continue
			case doubts:
				doubtful = append(doubtful, "uses "+text)
			}
			p.cover(c, h)
		}
	}
	switch {
	case len(p.covers) == 0 && len(refused) == 0:
		return errors.Join(errNoMPI, p.image.err)
	case len(p.covers) == 0:
		return fault.WithHint(errors.New(refused[0]), "--"+option.NoMPI+" runs the image's own MPI; otherwise use an image whose MPI has the host's ABI")
	}
	// The libraries of one MPI have one version: the first speaks for all.
	for _, texts := range [][]string{refused, doubtful} {
		if len(texts) > 0 {
			p.warnings = append(p.warnings, "MPI "+p.stack.Name+" "+texts[0])
		}
	}
	p.warnMixed(libraries)
	return nil
}

// warnMixed warns of libraries of the image that stay while those they belong to
// are replaced.
func (p *plan) warnMixed(libraries []*lib) {
	replaced := map[string]bool{}
	for _, h := range libraries {
		replaced[h.purpose()] = true
	}
	for _, purpose := range slices.Sorted(maps.Keys(purposes)) {
		if replaced[purpose] || !replaced[purposeC] {
			continue
		}
		for _, c := range p.image.named(purposes[purpose], libraries[0].Version) {
			p.warnings = append(p.warnings, fmt.Sprintf("MPI %s has no library for %s: the image's %s may not fit it", p.stack.Name, purpose, c))
		}
	}
}

// findDirectory finds where the loader of the image looks in any case: where its C
// library is.
func (p *plan) findDirectory() error {
	if p.libc = p.image.find("libc.so.6"); p.libc == nil {
		return errNoGNU
	}
	p.directory = path.Dir(p.libc.path)
	return nil
}

var errNoGNU = fault.WithHint(errors.New("the host's libraries need the GNU C library, and the image has none for this machine"),
	"--"+option.NoMPI+" runs the image's own MPI; otherwise use an image of a distribution with the GNU C library")

// replaceDependencies gives the container the host's, except where the image's is
// newer.
func (p *plan) replaceDependencies() error {
	dependencies, err := p.host.all(p.stack.Dependencies)
	if err != nil {
		return err
	}
	for _, h := range dependencies {
		name := h.soname()
		if isGNU(name) {
			return fmt.Errorf("dependency %s is part of the C library, which must be the image's: the site must leave it out", name)
		}
		copies := p.image.named([]string{name}, nil)
		if len(copies) == 0 {
			p.add(name, h)
		}
		for _, c := range copies {
			if verdict, _ := compare("full", h.Version, c.Version); verdict == refuses {
				p.notes = append(p.notes, fmt.Sprintf("MPI %s: the image's %s stays: it is newer than the host's %s", p.stack.Name, c, h))
				continue
			}
			p.cover(c, h)
		}
	}
	return nil
}

// satisfy makes sure that the loader finds what a library of the host needs.
func (p *plan) satisfy(h *lib) error {
	for _, name := range h.Needed {
		if p.adds[name] != nil {
			continue
		}
		required := h.Requires[name]
		if isGNU(name) {
			if err := p.checkGNU(h, required); err != nil {
				return err
			}
			continue
		}
		if len(required) == 0 && p.image.knows(name) {
			continue
		}
		c := p.image.find(name)
		if c != nil && (p.isCovered(c) || missing(required, p.image.defines(c)) == "") {
			continue
		}
		with, err := p.host.near(name, h)
		if err != nil {
			return fmt.Errorf("the host's %s needs %s: %w", h, name, err)
		}
		if c == nil {
			p.add(name, with)
		} else {
			p.cover(c, with)
		}
	}
	return nil
}

// checkGNU checks that the image's C library is new enough. Its parts are of one
// release, so the largest speaks for all.
func (p *plan) checkGNU(h *lib, required []string) error {
	lacks := missing(required, p.image.defines(p.libc))
	if lacks == "" {
		return nil
	}
	return fault.WithHint(fmt.Errorf("the host's %s needs %s, and the image's libc.so.6 has only %s", h, lacks, newest(p.libc.Defines, lacks)),
		"--"+option.NoMPI+" runs the image's own MPI; otherwise use an image with a newer C library")
}

func (p *plan) isCovered(c *lib) bool {
	return slices.ContainsFunc(p.covers, func(done cover) bool { return done.image == c })
}

func (p *plan) cover(c, h *lib) {
	if p.isCovered(c) {
		return
	}
	p.covers = append(p.covers, cover{c, h})
	p.notes = append(p.notes, fmt.Sprintf("MPI %s: %s of the host replaces %s", p.stack.Name, h.path, c.path))
	p.use(h)
}

func (p *plan) add(name string, h *lib) {
	p.adds[name] = h
	p.notes = append(p.notes, fmt.Sprintf("MPI %s: %s of the host is added to %s", p.stack.Name, h.path, p.directory))
	p.use(h)
}

func (p *plan) use(h *lib) {
	if !slices.Contains(p.used, h) {
		p.used = append(p.used, h)
	}
}
