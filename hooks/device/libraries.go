// SPDX-License-Identifier: Apache-2.0

package device

import (
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/ldso"
)

// lib is a library of the host: the names that programs ask for, its file, and
// where the container has that, or "" where that is still open.
type lib struct {
	names           []string
	host, container string
}

// addLibrary adds a library that is mounted. Other files are passed over.
func (p *plan) addLibrary(host, container string) {
	if _, ok := ldso.ParseName(filepath.Base(host)); !ok {
		return
	}
	p.look(host)
	st, err := os.Stat(host)
	if err != nil || !st.Mode().IsRegular() {
		return
	}
	f, err := os.Open(host)
	if err != nil {
		return
	}
	defer f.Close()
	if name, err := ldso.Soname(f); err == nil && name != "" && !strings.Contains(name, "/") {
		p.libraries = append(p.libraries, lib{[]string{name}, host, container})
	}
}

// loader is what the image's loader goes by.
type loader struct {
	files *hook.Image
	cache map[string][]string
	// directory is where its C library is.
	directory string
}

// maxCopies is how many files of one name are looked at. Images have one or two.
const maxCopies = 16

// openLoader returns nil for an image without the GNU C library.
func openLoader(files *hook.Image) *loader {
	l := &loader{files: files, cache: map[string][]string{}}
	if f, _, err := files.OpenFile(ldso.CachePath); err == nil {
		text, err := io.ReadAll(io.LimitReader(f, ldso.MaxCache))
		f.Close()
		if err == nil {
			entries, _ := ldso.ParseCache(text) // a file that is no cache has none
			for _, e := range entries {
				if len(l.cache[e.Name]) < maxCopies {
					l.cache[e.Name] = append(l.cache[e.Name], e.Path)
				}
			}
		}
	}
	const libc = "libc.so.6"
	paths := l.cache[libc]
	for _, dir := range ldso.Directories() {
		paths = append(paths, path.Join(dir, libc))
	}
	for _, at := range paths {
		if resolved := l.resolve(at); resolved != "" {
			l.directory = path.Dir(resolved)
			return l
		}
	}
	return nil
}

// resolve returns the path of a file of the image, links resolved, or "".
func (l *loader) resolve(at string) string {
	f, resolved, err := l.files.OpenFile(at)
	if err != nil {
		return ""
	}
	f.Close()
	return resolved
}

// find returns the files of the image that have the name of a library. The cache has
// all that are beside the C library, if there is one.
func (l *loader) find(name string) []string {
	paths := l.cache[name]
	if len(l.cache) == 0 {
		paths = []string{path.Join(l.directory, name)}
	}
	var all []string
	for _, at := range paths {
		if resolved := l.resolve(at); resolved != "" {
			all = append(all, resolved)
		}
	}
	return all
}

// addLibraries makes the host's libraries known to the image's loader.
func (p *plan) addLibraries(files *hook.Image) {
	if len(p.libraries) == 0 {
		return
	}
	l := openLoader(files)
	if l == nil {
		p.warn("the image has no GNU C library, which the driver's libraries need: programs do not find them")
		return
	}
	newer := p.compatibility(l)
	taken := map[string]bool{}
	for _, lib := range p.libraries {
		if lib.container == "" {
			lib.container = path.Join(l.directory, filepath.Base(lib.host))
			p.show(lib, lib.container, taken)
		}
		for _, name := range lib.names {
			if at := newer(name); at != "" {
				p.link(path.Join(l.directory, name), at)
				continue
			}
			for _, resolved := range l.find(name) {
				p.show(lib, resolved, taken)
			}
			p.link(path.Join(l.directory, name), lib.container)
		}
	}
}

// show mounts a library, unless something is mounted there already.
func (p *plan) show(lib lib, at string, taken map[string]bool) {
	if taken[at] || at == lib.container && p.shows(at) {
		return
	}
	taken[at] = true
	p.found.Mounts = append(p.found.Mounts, bundlespec.Bind(lib.host, at, bundlespec.AsUser, "ro"))
}

func (p *plan) shows(at string) bool {
	for _, m := range p.found.Mounts {
		if filepath.Clean(m.Destination) == at {
			return true
		}
	}
	return false
}

// link makes a name for a library; a file of that name, which then is covered, stays.
func (p *plan) link(at, target string) {
	if at == target {
		return
	}
	if path.Dir(at) == path.Dir(target) {
		target = path.Base(target)
	}
	p.found.Links = append(p.found.Links, hook.Link{Path: at, Target: target})
}

// compatDirectory has libraries of a newer driver in images of NVIDIA's.
const compatDirectory = "/usr/local/cuda/compat"

// compatibility tells which libraries of the image come before the host's: those of
// a newer driver, with which CUDA runs on an older kernel module (docs.nvidia.com,
// "CUDA Compatibility"), where the specification has enabled that.
func (p *plan) compatibility(l *loader) func(name string) string {
	none := func(string) string { return "" }
	host, ok := ldso.ParseName("libcuda.so." + p.compatible)
	if p.compatible == "" || !ok {
		return none
	}
	image, ok := ldso.ParseName(path.Base(l.resolve(compatDirectory + "/libcuda.so.1")))
	if !ok || len(image.Version) == 0 || image.Version[0] <= host.Version[0] {
		return none
	}
	p.note("the image's libcuda.so.%s is used: it is newer than the host's %s", image.Version, p.compatible)
	return func(name string) string { return l.resolve(path.Join(compatDirectory, name)) }
}
