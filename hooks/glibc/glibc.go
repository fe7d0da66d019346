// SPDX-License-Identifier: Apache-2.0

// Package glibc replaces an image's GNU C library by the host's, if that is newer,
// so that libraries of the host that need a newer one run in old images.
//
// Condition: the user asks for it (--container-glibc) or the site wants it for all
// images (container.glibc).
//
// The C library consists of libraries and a loader of one release, which use what no
// other release has, so all of them that the image has are replaced together
// (package replace), and what iconv(3) loads besides. It is never replaced by an
// older one or by one with the same symbols. Which is newer is read from the versions
// of symbols that both define, without executing anything; where an image has
// another C library, musl for example, there is nothing to replace.
//
// A container shows nothing else of the host than these files.
package glibc

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/hook/replace"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// Hook implements hook.CachedInspector.
type Hook struct{}

// Name implements hook.Hook.
func (Hook) Name() string { return "glibc" }

// Describe implements hook.Hook.
func (Hook) Describe() hook.Description {
	return hook.Description{
		Stage:  hook.AtInspect,
		When:   "--" + option.Glibc + ", or the site wants it",
		Effect: "puts the host's GNU C library in place of an older one of the image",
	}
}

// Wanted implements hook.Hook.
func (Hook) Wanted(r request.Request) bool { return r.Glibc != request.GlibcNo }

// Inputs implements hook.CachedInspector.
func (Hook) Inputs(spec *specs.Spec, r request.Request) []string {
	return []string{string(r.Glibc), replace.SearchPath(spec.Process.Env)}
}

// loaders are the paths that programs name as their interpreter (PT_INTERP), which
// the ABIs of the architectures fix.
var loaders = map[string]string{
	"amd64":   "/lib64/ld-linux-x86-64.so.2",
	"arm64":   "/lib/ld-linux-aarch64.so.1",
	"riscv64": "/lib/ld-linux-riscv64-lp64d.so.1",
}

// libraries are those of the C library less the loader (glibc, Makefiles of its
// directories, "extra-libs"). libcrypt is a project of its own since 2018.
var libraries = []string{
	libc, "libm.so.6", "libmvec.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1",
	"libresolv.so.2", "libanl.so.1", "libnsl.so.1", "libthread_db.so.1", "libBrokenLocale.so.1", "libc_malloc_debug.so.0",
	"libnss_compat.so.2", "libnss_dns.so.2", "libnss_files.so.2", "libnss_hesiod.so.2", "libnss_db.so.2",
}

const libc = "libc.so.6"

const refuse = "--" + option.NoGlibc + " runs the image's own C library"

// errOther means that there is nothing to replace.
var errOther = fault.WithHint(errors.New("the image has no GNU C library for this machine (musl, or static programs only?)"),
	"leave --"+option.Glibc+" out: its programs do not need the host's C library")

// Inspect replaces the C library. By the site's wish, an image that it does not fit
// keeps its own.
func (Hook) Inspect(files *hook.Image, spec *specs.Spec, r request.Request) (hook.Findings, error) {
	p := plan{Plan: replace.New(files, spec.Process.Env, replace.Purposes{}, "C library", refuse), files: files}
	defer p.Close()
	err := p.make()
	if err == nil {
		found := p.Findings()
		found.Mounts = p.mounts
		return found, p.CarryOut()
	}
	if r.Glibc == request.GlibcYes {
		return hook.Findings{}, err
	}
	found := hook.Findings{Sources: p.Host.Looked()}
	if !errors.Is(err, errOther) {
		found.Warnings = []string{"the image's own C library is used: " + fault.Line(err)}
	}
	return found, nil
}

type plan struct {
	*replace.Plan
	files  *hook.Image
	mounts []specs.Mount
}

// make decides everything and changes nothing.
func (p *plan) make() error {
	image := p.Image.Find(libc)
	if image == nil {
		return errOther
	}
	host, err := p.Host.Named(libc)
	if err != nil {
		return err
	}
	theirs, ours := newest(p.Image.Defines(image)), newest(host.Defines)
	if err := p.Err(); err != nil {
		return err
	}
	switch {
	case theirs == "" || ours == "":
		return fmt.Errorf("compare %s of the host and the image: one of them does not say its version", libc)
	case replace.Newest([]string{ours, theirs}, theirs) == theirs:
		p.Note("%s of the image stays: the host's, %s, is not newer", theirs, ours)
		return nil
	}
	if !p.Image.HasCache() && directory(image) != directory(host) {
		return fault.WithHint(fmt.Errorf("the image has no ld.so.cache, and the host's loader does not look into %s", path.Dir(image.Path)),
			"run ldconfig when the image is built")
	}
	return p.replace(host, theirs, ours)
}

// directory returns where a library is. Loaders look into /usr/lib as into /lib.
func directory(l *replace.Library) string { return strings.TrimPrefix(path.Dir(l.Path), "/usr") }

// newest returns the newest version of symbols that a C library defines, such as
// GLIBC_2.36, or "". Most releases bring some; programs ask for nothing else.
func newest(defines []string) string {
	return replace.Newest(defines, "GLIBC_2")
}

// replace covers all of the image's C library.
func (p *plan) replace(host *replace.Library, theirs, ours string) error {
	p.Note("%s of the host replaces %s", ours, theirs)
	loader, err := p.Host.Named(loaders[runtime.GOARCH])
	if err != nil {
		return err
	}
	at := p.Image.At(loaders[runtime.GOARCH])
	if at == nil {
		return fmt.Errorf("the image has a C library, but no loader %s", loaders[runtime.GOARCH])
	}
	p.Cover(at, loader)
	for _, name := range libraries {
		copies := p.Image.Named([]string{name}, nil)
		if len(copies) == 0 {
			continue
		}
		with, err := p.Host.Near(name, host)
		if err != nil {
			// Newer releases have dropped some; only who loads one misses it.
			p.Note("the image's %s stays: the host has none", name)
			continue
		}
		for _, c := range copies {
			p.Cover(c, with)
		}
	}
	p.showConverters(host)
	return p.AddMissing()
}

// showConverters shows the host's modules of iconv(3) where the host's C library looks
// for them, if the image has some: they are of its release, too.
func (p *plan) showConverters(host *replace.Library) {
	ours := path.Join(path.Dir(host.Path), "gconv")
	p.Host.Look(ours)
	if st, err := os.Stat(ours); err != nil || !st.IsDir() {
		return
	}
	for _, dir := range []string{path.Dir(p.Image.Find(libc).Path), path.Join("/usr", path.Dir(p.Image.Find(libc).Path))} {
		f, _, err := p.files.OpenFile(path.Join(dir, "gconv/gconv-modules"))
		if err != nil {
			continue
		}
		f.Close()
		p.mounts = append(p.mounts, bundlespec.Bind(ours, ours, "ro"))
		p.Note("%s of the host is shown", ours)
		return
	}
}
