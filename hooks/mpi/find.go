// SPDX-License-Identifier: Apache-2.0

package mpi

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/library"
)

// lib is a library of the host or the image.
type lib struct {
	library.Name
	// Object is what the file says; of the image's, see [image.defines].
	library.Object
	// path is the file, links resolved; of the image's, inside the image.
	path string
	// file is the image's, open.
	file *os.File
}

// String names the library as exactly as it is known.
func (l *lib) String() string {
	if len(l.Version) == 0 {
		return l.Base + ".so"
	}
	return l.Base + ".so." + l.Version.String()
}

func (l *lib) purpose() string { return purposeOf(l.Base) }

// soname is the name that programs ask for.
func (l *lib) soname() string {
	if l.Soname != "" {
		return l.Soname
	}
	return filepath.Base(l.path)
}

// host finds libraries of the host.
type host struct {
	cache []library.Entry
	// opened has what was found, by path.
	opened map[string]*lib
}

// all finds the libraries that the site names. All that are missing are reported.
func (h *host) all(names []string) ([]*lib, error) {
	var all []*lib
	var errs []error
	for _, name := range names {
		l, err := h.named(name)
		errs = append(errs, err)
		all = append(all, l)
	}
	return all, errors.Join(errs...)
}

// near finds what a library needs: beside it, or as the loader does.
func (h *host) near(name string, other *lib) (*lib, error) {
	if l, err := h.open(filepath.Join(filepath.Dir(other.path), name)); err == nil {
		return l, nil
	}
	return h.named(name)
}

// named finds a library by its path, or its name in the loader's cache.
func (h *host) named(name string) (*lib, error) {
	if strings.Contains(name, "/") {
		return h.open(name)
	}
	if h.cache == nil {
		text, err := os.ReadFile(library.CachePath)
		if err == nil {
			h.cache, err = library.ParseCache(text)
		}
		if err != nil {
			return nil, fmt.Errorf("find %s on this node: %w", name, err)
		}
	}
	for _, entry := range h.cache {
		if entry.Name != name {
			continue
		}
		if l, err := h.open(entry.Path); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("find %s on this node: it is not in %s", name, library.CachePath)
}

func (h *host) open(path string) (*lib, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("open the host's library: %w", err)
	}
	if l := h.opened[resolved]; l != nil {
		return l, nil
	}
	f, err := os.Open(resolved)
	if err != nil {
		return nil, fmt.Errorf("open the host's library: %w", err)
	}
	defer f.Close()
	object, err := library.Read(f)
	if err != nil {
		return nil, fmt.Errorf("read the host's library %s: %w", path, err)
	}
	name, ok := identify(filepath.Base(path), object.Soname, filepath.Base(resolved))
	if !ok {
		return nil, fmt.Errorf("read the host's library %s: its name is not that of a library", path)
	}
	l := &lib{Name: name, Object: object, path: resolved}
	if h.opened == nil {
		h.opened = map[string]*lib{}
	}
	h.opened[resolved] = l
	return l, nil
}

// image finds libraries of the image.
type image struct {
	files hook.Image
	// directories come before the cache, usual ones after it.
	directories []string
	cache       []library.Entry
	// opened has the libraries that were found, tried the paths that were looked
	// at; err says that they were too many.
	opened map[inode]*lib
	tried  map[string]*lib
	err    error
}

// inode identifies a file.
type inode struct{ device, number uint64 }

// maxTries limits what an image can make the helper read.
const maxTries = 500

// usual are the directories of the loader's, whether or not there is a cache.
func usual() []string {
	triplet := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH] + "-linux-gnu"
	return []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib"}
}

func openImage(files hook.Image, env []string) *image {
	i := &image{files: files, opened: map[inode]*lib{}, tried: map[string]*lib{}}
	for _, variable := range env {
		if value, ok := strings.CutPrefix(variable, "LD_LIBRARY_PATH="); ok {
			i.directories = strings.FieldsFunc(value, func(r rune) bool { return r == ':' || r == ';' })
		}
	}
	f, _, err := files.OpenFile(library.CachePath)
	if err != nil {
		return i // an image without a cache has the usual directories
	}
	defer f.Close()
	if text, err := io.ReadAll(io.LimitReader(f, library.MaxCache)); err == nil {
		i.cache, _ = library.ParseCache(text) // the same
	}
	return i
}

func (i *image) close() {
	for _, l := range i.opened {
		l.file.Close()
	}
}

// withPurpose returns the libraries of the image with the purpose of one of the
// host's.
func (i *image) withPurpose(h *lib) []*lib {
	purpose := h.purpose()
	var all []*lib
	for _, entry := range i.cache {
		if name, ok := library.ParseName(entry.Name); ok && purposeOf(name.Base) == purpose {
			all = appendNew(all, i.open(entry.Path, entry.Name))
		}
	}
	if len(all) > 0 && len(i.directories) == 0 {
		return all
	}
	names := purposes[purpose]
	if names == nil {
		names = []string{h.Base}
	}
	return appendNew(all, i.named(names, h.Version)...)
}

// named returns the libraries of the image with one of the names, to which the
// first number of a version is appended if there is one, in the loader's order.
func (i *image) named(names []string, version library.Version) []*lib {
	var all []*lib
	for _, name := range names {
		if len(version) > 0 {
			name = fmt.Sprintf("%s.so.%d", name, version[0])
		}
		before := len(all)
		for _, path := range i.paths(name) {
			all = appendNew(all, i.open(path, name))
		}
		if len(all) > before {
			continue
		}
		for _, dir := range usual() {
			all = appendNew(all, i.open(filepath.Join(dir, name), name))
		}
	}
	return all
}

// paths are where the loader looks before it tries the usual directories.
func (i *image) paths(name string) []string {
	var paths []string
	for _, dir := range i.directories {
		paths = append(paths, filepath.Join(dir, name))
	}
	for _, entry := range i.cache {
		if entry.Name == name {
			paths = append(paths, entry.Path)
		}
	}
	return paths
}

// knows tells whether the cache has a library of that name.
func (i *image) knows(name string) bool {
	return slices.ContainsFunc(i.cache, func(e library.Entry) bool { return e.Name == name })
}

// find returns the library that the loader finds, or nil.
func (i *image) find(name string) *lib {
	paths := i.paths(name)
	for _, dir := range usual() {
		paths = append(paths, filepath.Join(dir, name))
	}
	for _, path := range paths {
		if l := i.open(path, name); l != nil {
			return l
		}
	}
	return nil
}

func appendNew(all []*lib, more ...*lib) []*lib {
	for _, l := range more {
		if l != nil && !slices.Contains(all, l) {
			all = append(all, l)
		}
	}
	return all
}

// open opens a library, or returns nil where there is none for this machine.
func (i *image) open(path, name string) *lib {
	l, known := i.tried[path]
	switch {
	case known:
		return l
	case len(i.tried) == maxTries:
		i.err = errors.New("the image has too many libraries of these names")
		return nil
	}
	f, resolved, err := i.files.OpenFile(path)
	if err == nil {
		// The cache knows for which machine a library is.
		cached := slices.Contains(i.cache, library.Entry{Name: name, Path: path})
		l = i.describe(name, resolved, f, cached)
	}
	i.tried[path] = l
	return l
}

// describe tells what an open file is, which it closes unless that is a new library.
// It reads as little as will do: each part of a file must be unpacked from the
// image.
func (i *image) describe(name, resolved string, f *os.File, isLibrary bool) *lib {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	id := inode{uint64(st.Dev), st.Ino}
	l := i.opened[id]
	if err == nil && l == nil && !isLibrary {
		err = library.Check(f)
	}
	if err != nil || l != nil {
		f.Close()
		return l
	}
	l = &lib{path: resolved, file: f}
	if l.Name, _ = identify(name, filepath.Base(resolved)); len(l.Version) == 0 {
		l.Object, _ = library.Read(f) // what cannot be read has no version
		l.Name, _ = identify(name, l.Soname)
	}
	i.opened[id] = l
	return l
}

// defines returns the versions of symbols that a library has.
func (i *image) defines(l *lib) []string {
	if l.Defines == nil {
		l.Object, _ = library.Read(l.file) // what cannot be read has none
	}
	return l.Defines
}
