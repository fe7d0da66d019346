// SPDX-License-Identifier: Apache-2.0

// Package replace puts libraries of the host in place of an image's.
//
// The libraries of the image are found as the loader finds them, by its cache, the
// image's LD_LIBRARY_PATH and the usual directories (find.go), and each is covered
// with one of the host's, so that it is the host's under whatever name or path a
// program asks for it. What the host's libraries need is looked for, too: what the
// image lacks is added beside its C library, and versions of symbols that it does
// not have are an error now instead of one of the loader's in each task.
//
// A hook makes a [Plan], which decides and changes nothing, and carries it out when
// all is decided. Nothing of the image is executed, files of the image are read as
// the user, and no link leads out of it.
package replace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/option"
)

// Plan is what is going to be done.
type Plan struct {
	Host  *Host
	Image *Image
	// Warnings are told to the user, Notes if the user wants to hear more.
	Warnings, Notes []string
	// Together are beginnings of names: such libraries use what no other release
	// has, so if one of the host needs one, it must be the host's.
	Together []string

	name, refuse string
	// covers are files of the image to be covered, adds the names that are to be
	// added to directory.
	covers    []cover
	adds      map[string]*Library
	order     []string // of adds
	directory string
	// libc is the image's C library.
	libc *Library
	// used are the host's libraries that the container gets.
	used []*Library
}

type cover struct{ image, host *Library }

// New returns an empty plan. Name is what messages begin with, env the container's
// environment, and refuse what users can do where the libraries of the host do not
// run with the image's C library.
func New(files *hook.Image, env []string, purposes Purposes, name, refuse string) *Plan {
	host := newHost(purposes)
	return &Plan{
		Host: host, Image: openImage(files, host, env),
		name: name, refuse: refuse, adds: map[string]*Library{},
	}
}

// Close closes the image's files.
func (p *Plan) Close() { p.Image.close() }

// Note says something to users who want to hear more, Warn to all.
func (p *Plan) Note(format string, a ...any) {
	p.Notes = append(p.Notes, p.name+": "+fmt.Sprintf(format, a...))
}

// Warn says something to all users.
func (p *Plan) Warn(format string, a ...any) {
	p.Warnings = append(p.Warnings, p.name+" "+fmt.Sprintf(format, a...))
}

// Err returns an error if the image has more than is looked at. Then nothing else that was
// found out about it counts.
func (p *Plan) Err() error { return fault.WithHint(p.Image.err, p.refuse) }

// Covers tells how many files of the image will be covered.
func (p *Plan) Covers() int { return len(p.covers) }

// Findings returns what is to be told, and the files of the host that were looked at.
func (p *Plan) Findings() hook.Findings {
	return hook.Findings{Warnings: p.Warnings, Notes: p.Notes, Sources: p.Host.Looked()}
}

// Serves returns the path, where it was installed, of the library that programs in the
// container will find by that name: of the host's on the host. It is "" if there is none.
func (p *Plan) Serves(name string) string {
	if h := p.adds[name]; h != nil {
		return h.Path
	}
	l := p.Image.Find(name)
	switch {
	case l == nil:
		return ""
	case l.by != nil:
		return l.by.Path
	}
	for _, c := range p.covers {
		if c.image == l {
			return c.host.Path
		}
	}
	return l.Path
}

// CarryOut does what was planned.
func (p *Plan) CarryOut() error {
	var errs []error
	for _, c := range p.covers {
		errs = append(errs, p.Image.files.Cover(c.image.file, c.image.Path, c.host.Path))
	}
	for _, name := range p.order {
		errs = append(errs, p.Image.files.Add(p.adds[name].Path, p.directory+"/"+name))
	}
	return errors.Join(errs...)
}

// ErrNoGNU means that the image has no C library that the host's libraries could be
// used with.
var ErrNoGNU = errors.New("the host's libraries need the GNU C library, and the image has none for this machine")

// Complete makes sure that the loader finds what the libraries of the host need:
// the dependencies, which replace the image's unless those are newer, and what any
// of them needs besides.
func (p *Plan) Complete(dependencies []string) error {
	if err := p.findDirectory(); err != nil {
		return err
	}
	if err := p.replaceDependencies(dependencies); err != nil {
		return err
	}
	for i := 0; i < len(p.used); i++ { // it grows meanwhile
		if err := p.satisfy(p.used[i]); err != nil {
			return err
		}
	}
	return p.Err()
}

// AddMissing adds those libraries that the host's need and the image has none of, of
// whatever version.
func (p *Plan) AddMissing() error {
	if err := p.findDirectory(); err != nil {
		return err
	}
	for i := 0; i < len(p.used); i++ { // it grows meanwhile
		for _, name := range p.used[i].Needed {
			if p.adds[name] != nil || p.Image.Find(name) != nil {
				continue
			}
			with, err := p.Host.Near(name, p.used[i])
			if err != nil {
				return fmt.Errorf("the host's %s needs %s: %w", p.used[i], name, err)
			}
			p.Add(name, with)
		}
	}
	return p.Err()
}

// findDirectory finds where the loader of the image looks in any case: where its C
// library is.
func (p *Plan) findDirectory() error {
	if p.libc = p.Image.Find("libc.so.6"); p.libc == nil {
		return fault.WithHint(ErrNoGNU, p.refuse+"; otherwise use an image of a distribution with the GNU C library")
	}
	p.directory = path.Dir(p.libc.Path)
	return nil
}

// replaceDependencies gives the container the host's, except where the image's is
// newer.
func (p *Plan) replaceDependencies(names []string) error {
	dependencies, err := p.Host.All(names)
	if err != nil {
		return err
	}
	for _, h := range dependencies {
		name := h.Asked()
		if IsGNU(name) {
			return fmt.Errorf("dependency %s is part of the C library, which must be the image's: the site must leave it out", name)
		}
		copies := p.Image.Named([]string{name}, nil)
		if len(copies) == 0 {
			p.Add(name, h)
		}
		for _, c := range copies {
			if verdict, _ := Compare("full", h.Version, c.Version); verdict == Refuses {
				p.Note("the image's %s stays: it is newer than the host's %s", c, h)
				continue
			}
			p.Cover(c, h)
		}
	}
	return nil
}

// satisfy makes sure that the loader finds what a library of the host needs.
func (p *Plan) satisfy(h *Library) error {
	for _, name := range h.Needed {
		if p.adds[name] != nil {
			continue
		}
		if slices.ContainsFunc(p.Together, func(t string) bool { return strings.HasPrefix(name, t) }) {
			if err := p.takeHosts(name, h); err != nil {
				return err
			}
			continue
		}
		required := h.Requires[name]
		if IsGNU(name) {
			if err := p.checkGNU(h, required); err != nil {
				return err
			}
			continue
		}
		if len(required) == 0 && p.Image.knows(name) {
			continue
		}
		c := p.Image.Find(name)
		if c != nil && (p.isCovered(c) || missing(required, p.Image.Defines(c)) == "") {
			continue
		}
		with, err := p.Host.Near(name, h)
		if err != nil {
			return fmt.Errorf("the host's %s needs %s: %w: %w", h, name, errMissing, err)
		}
		if c == nil {
			p.Add(name, with)
		} else {
			p.Cover(c, with)
		}
	}
	return nil
}

// takeHosts gives the container the host's library, whatever the image has.
func (p *Plan) takeHosts(name string, other *Library) error {
	with, err := p.Host.Near(name, other)
	if err != nil {
		return fmt.Errorf("the host's %s needs %s: %w: %w", other, name, errMissing, err)
	}
	copies := p.Image.Named([]string{name}, nil)
	if len(copies) == 0 {
		p.Add(name, with)
	}
	for _, c := range copies {
		p.Cover(c, with)
	}
	return nil
}

// errMissing means that the host lacks what a library of its own needs.
var errMissing = errors.New("the host has none")

// Modules makes sure that the loader finds what modules in a directory of the host
// need, which its libraries load while they run. A module that cannot be loaded on the
// host is none in the container either. It must come after Complete.
func (p *Plan) Modules(dir string) error {
	p.Host.Look(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read modules: %w", err)
	}
	from := len(p.used)
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".so" {
			continue
		}
		if module, err := p.Host.open(filepath.Join(dir, e.Name())); err == nil {
			p.used = append(p.used, module)
		}
	}
	for i := from; i < len(p.used); i++ { // it grows meanwhile
		err := p.satisfy(p.used[i])
		if errors.Is(err, errMissing) {
			p.Note("a module will not be loaded: %v", err)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return p.Err()
}

// checkGNU checks that the image's C library is new enough. Its parts are of one
// release, so the largest speaks for all.
func (p *Plan) checkGNU(h *Library, required []string) error {
	defined := p.Image.Defines(p.libc)
	lacks := missing(required, defined)
	if lacks == "" {
		return nil
	}
	return fault.WithHint(fmt.Errorf("the host's %s needs %s, and the image's libc.so.6 has only %s", h, lacks, Newest(defined, lacks)),
		p.refuse+"; otherwise try --"+option.Glibc+", which uses the host's C library, or use an image with a newer one")
}

func (p *Plan) isCovered(c *Library) bool {
	return c.by != nil || slices.ContainsFunc(p.covers, func(done cover) bool { return done.image == c })
}

// Cover will put a library of the host in place of the image's.
func (p *Plan) Cover(c, h *Library) {
	if c.by != nil && c.by.Path != h.Path {
		p.Note("%s of the host stays at %s: another hook has put it there", c.by.Path, c.Path)
	}
	if p.isCovered(c) {
		return
	}
	p.covers = append(p.covers, cover{c, h})
	p.Note("%s of the host replaces %s", h.Path, c.Path)
	p.use(h)
}

// Add will show a library of the host that the image lacks.
func (p *Plan) Add(name string, h *Library) {
	p.adds[name] = h
	p.order = append(p.order, name)
	p.Note("%s of the host is added to %s", h.Path, p.directory)
	p.use(h)
}

func (p *Plan) use(h *Library) {
	if !slices.Contains(p.used, h) {
		p.used = append(p.used, h)
	}
}
