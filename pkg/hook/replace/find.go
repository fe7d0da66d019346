// SPDX-License-Identifier: Apache-2.0

package replace

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/ldso"
	"github.com/brolga-hpc/brolga/pkg/nodecache"
)

// Library is a library of the host or the image.
type Library struct {
	ldso.Name
	// Object is what the file says; of the image's, see [Image.Defines].
	ldso.Object
	// Path is the file, links resolved; of the image's, inside the image.
	Path string
	// file is the image's, open.
	file *os.File
	// by is the host's that an earlier hook shows in its place.
	by *Library
	// Purpose is what one of the host is for, see [Purposes].
	Purpose string
}

// String names the library as exactly as it is known.
func (l *Library) String() string {
	if len(l.Version) == 0 {
		return l.Base + ".so"
	}
	return l.Base + ".so." + l.Version.String()
}

// Asked is the name that programs ask for.
func (l *Library) Asked() string {
	if l.Soname != "" {
		return l.Soname
	}
	return filepath.Base(l.Path)
}

// Host finds libraries of the host.
type Host struct {
	purposes Purposes
	cache    []ldso.Entry
	// opened has what was found, by path.
	opened map[string]*Library
	// looked has the paths that were looked at.
	looked map[string]nodecache.File
}

func newHost(purposes Purposes) *Host {
	return &Host{purposes: purposes, opened: map[string]*Library{}, looked: map[string]nodecache.File{}}
}

// Looked returns the files that were looked at, as they were.
func (h *Host) Looked() []nodecache.File {
	return slices.SortedFunc(maps.Values(h.looked), func(a, b nodecache.File) int { return strings.Compare(a.Path, b.Path) })
}

// Look notes a file that something depends on. It must come before it is read.
func (h *Host) Look(path string) {
	if _, known := h.looked[path]; !known {
		h.looked[path] = nodecache.Look([]string{path})[0]
	}
}

// All finds the libraries that the site names. All that are missing are reported.
func (h *Host) All(names []string) ([]*Library, error) {
	var all []*Library
	var errs []error
	for _, name := range names {
		l, err := h.Named(name)
		errs = append(errs, err)
		all = append(all, l)
	}
	return all, errors.Join(errs...)
}

// Near finds what belongs to a library: beside it, or as the loader does.
func (h *Host) Near(name string, other *Library) (*Library, error) {
	if l, err := h.open(filepath.Join(filepath.Dir(other.Path), name)); err == nil {
		return l, nil
	}
	return h.Named(name)
}

// Named finds a library by its path, or its name in the loader's cache.
func (h *Host) Named(name string) (*Library, error) {
	if strings.Contains(name, "/") {
		return h.open(name)
	}
	if h.cache == nil {
		h.Look(ldso.CachePath)
		text, err := os.ReadFile(ldso.CachePath)
		if err == nil {
			h.cache, err = ldso.ParseCache(text)
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
	return nil, fmt.Errorf("find %s on this node: it is not in %s", name, ldso.CachePath)
}

func (h *Host) open(path string) (*Library, error) {
	h.Look(path)
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("open the host's library: %w", err)
	}
	if l := h.opened[resolved]; l != nil {
		return l, nil
	}
	h.Look(resolved)
	f, err := os.Open(resolved)
	if err != nil {
		return nil, fmt.Errorf("open the host's library: %w", err)
	}
	defer f.Close()
	object, err := ldso.Read(f)
	if err != nil {
		return nil, fmt.Errorf("read the host's library %s: %w", path, err)
	}
	name, ok := h.purposes.Identify(filepath.Base(path), object.Soname, filepath.Base(resolved))
	if !ok {
		return nil, fmt.Errorf("read the host's library %s: its name is not that of a library", path)
	}
	l := &Library{Name: name, Object: object, Path: resolved, Purpose: h.purposes.Of(name.Base)}
	h.opened[resolved] = l
	return l, nil
}

// Image finds libraries of the image.
type Image struct {
	files    *hook.Image
	host     *Host
	purposes Purposes
	// directories come before the cache, usual ones after it.
	directories []string
	cache       []ldso.Entry
	// opened has the libraries that were found, tried the paths that were looked
	// at; names is the size of what is kept of them; err says that it is too much.
	opened map[inode]*Library
	tried  map[string]*Library
	names  int
	err    error
}

// inode identifies a file.
type inode struct{ device, number uint64 }

// Limits of what an image can make the helper read and keep.
const (
	// maxTries is how many paths are looked at.
	maxTries = 500
	// maxNames is the size in bytes of all versions of the image's libraries. Those of
	// a C library are 1 KiB.
	maxNames = 1 << 20
)

func openImage(files *hook.Image, host *Host, env []string) *Image {
	i := &Image{files: files, host: host, purposes: host.purposes, opened: map[inode]*Library{}, tried: map[string]*Library{}}
	for dir := range strings.FieldsFuncSeq(SearchPath(env), func(r rune) bool { return r == ':' || r == ';' }) {
		if i.directories = append(i.directories, dir); len(i.directories) > maxTries {
			break // nobody looks into more of them
		}
	}
	f, _, err := files.OpenFile(ldso.CachePath)
	if err != nil {
		return i // an image without a cache has the usual directories
	}
	defer f.Close()
	if text, err := io.ReadAll(io.LimitReader(f, ldso.MaxCache)); err == nil {
		i.cache, _ = ldso.ParseCache(text) // the same
	}
	return i
}

// SearchPath returns the image's LD_LIBRARY_PATH.
func SearchPath(env []string) (path string) {
	for _, variable := range env {
		if value, ok := strings.CutPrefix(variable, "LD_LIBRARY_PATH="); ok {
			path = value
		}
	}
	return path
}

// fail notes what is too much of the image. The first counts.
func (i *Image) fail(err error) {
	if i.err == nil {
		i.err = err
	}
}

func (i *Image) close() {
	for _, l := range i.opened {
		l.file.Close()
	}
}

// WithPurpose returns the libraries of the image with the purpose of one of the
// host's.
func (i *Image) WithPurpose(h *Library) []*Library {
	purpose := h.Purpose
	var all []*Library
	for _, entry := range i.cache {
		if name, ok := ldso.ParseName(entry.Name); ok && i.purposes.Of(name.Base) == purpose {
			all = appendNew(all, i.open(entry.Path, entry.Name))
		}
	}
	if len(all) > 0 && len(i.directories) == 0 {
		return all
	}
	names := i.purposes.Names[purpose]
	if names == nil {
		names = []string{h.Base}
	}
	return appendNew(all, i.Named(names, h.Version)...)
}

// Named returns the libraries of the image with one of the names, to which the
// first number of a version is appended if there is one, in the loader's order.
func (i *Image) Named(names []string, version ldso.Version) []*Library {
	var all []*Library
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
		for _, dir := range ldso.Directories() {
			all = appendNew(all, i.open(filepath.Join(dir, name), name))
		}
	}
	return all
}

// paths are where the loader looks before it tries the usual directories.
func (i *Image) paths(name string) []string {
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

// At returns the library at a path, or nil.
func (i *Image) At(path string) *Library { return i.open(path, filepath.Base(path)) }

// HasCache tells whether the image has an ld.so.cache with libraries for this machine.
func (i *Image) HasCache() bool { return len(i.cache) > 0 }

// knows tells whether the cache has a library of that name.
func (i *Image) knows(name string) bool {
	return slices.ContainsFunc(i.cache, func(e ldso.Entry) bool { return e.Name == name })
}

// Find returns the library that the loader finds, or nil.
func (i *Image) Find(name string) *Library {
	paths := i.paths(name)
	for _, dir := range ldso.Directories() {
		paths = append(paths, filepath.Join(dir, name))
	}
	for _, path := range paths {
		if l := i.open(path, name); l != nil {
			return l
		}
	}
	return nil
}

func appendNew(all []*Library, more ...*Library) []*Library {
	for _, l := range more {
		if l != nil && !slices.Contains(all, l) {
			all = append(all, l)
		}
	}
	return all
}

// open opens a library, or returns nil where there is none for this machine.
func (i *Image) open(path, name string) *Library {
	l, known := i.tried[path]
	switch {
	case known:
		return l
	case len(i.tried) == maxTries:
		i.fail(errors.New("the image has too many libraries of these names"))
		return nil
	}
	f, resolved, err := i.files.OpenFile(path)
	if added := i.files.Added(path); err != nil && added != "" {
		l = i.standIn(added, path, name)
	}
	if err == nil {
		// The cache knows for which machine a library is.
		cached := slices.Contains(i.cache, ldso.Entry{Name: name, Path: path})
		l = i.describe(name, resolved, f, cached)
	}
	i.tried[path] = l
	return l
}

// describe tells what an open file is, which it closes unless that is a new library.
// It reads as little as will do: each part of a file must be unpacked from the
// image.
func (i *Image) describe(name, resolved string, f *os.File, isLibrary bool) *Library {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	id := inode{uint64(st.Dev), st.Ino}
	l := i.opened[id]
	if err == nil && l == nil && !isLibrary {
		err = ldso.Check(f)
	}
	if err != nil || l != nil {
		f.Close()
		return l
	}
	l = &Library{Path: resolved, file: f}
	if l.Name, _ = i.purposes.Identify(name, filepath.Base(resolved)); len(l.Version) == 0 {
		i.read(l)
		l.Name, _ = i.purposes.Identify(name, l.Soname)
	}
	if covered := i.files.Covered(f); covered != "" {
		l.by, _ = i.host.open(covered) // it was opened before
	}
	i.opened[id] = l
	return l
}

// standIn describes a library that an earlier hook adds to the image.
func (i *Image) standIn(source, path, name string) *Library {
	h, err := i.host.open(source)
	if err != nil {
		return nil
	}
	return &Library{Name: h.Name, Object: h.Object, Path: path, by: h}
}

// Defines returns the versions of symbols that a library has, or what will be shown
// in its place.
func (i *Image) Defines(l *Library) []string {
	if l.by != nil {
		return l.by.Defines
	}
	if l.Defines == nil {
		i.read(l)
	}
	return l.Defines
}

// read reads the name and the versions of a library. A file that cannot be read has
// none. One with more than can be kept is noted in err.
func (i *Image) read(l *Library) {
	object, err := ldso.Read(l.file)
	if errors.Is(err, budget.ErrLarge) {
		i.fail(fmt.Errorf("read the image's library %s: %w", budget.Shorten(l.Path), err))
	}
	i.names += len(object.Soname)
	for _, version := range object.Defines {
		i.names += len(version)
	}
	if err != nil || i.names > maxNames {
		if err == nil {
			i.fail(fmt.Errorf("read the image's libraries: their versions are %w", budget.Large(maxNames)))
		}
		object = ldso.Object{}
	}
	// What an image's library needs, the image has.
	l.Object = ldso.Object{Soname: object.Soname, Defines: object.Defines}
}
