// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/nodecache"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// Inspector is a hook that looks at the image's files.
type Inspector interface {
	Hook
	// Inspect runs in the helper, as root on the host, and says what the
	// container gets besides.
	Inspect(image *Image, spec *specs.Spec, r request.Request) (Findings, error)
}

// CachedInspector is an inspector that finds the same in the same image again, as long
// as Inputs and the files of the host in [Findings.Sources] are the same. It is not
// asked again until one of them changes.
type CachedInspector interface {
	Inspector
	// Inputs are what the result depends on beside the image, those files, and
	// what earlier hooks have found.
	Inputs(spec *specs.Spec, r request.Request) []string
}

// Root is a root file system with the image, mounted, and nothing in it. It lets
// nothing lead out of the image.
type Root interface {
	// OpenFile opens a regular file by an absolute path, as the user, and returns
	// the path that links lead to, inside the image.
	OpenFile(path string) (file *os.File, resolved string, err error)
	// Cover shows a file of the host, read-only, in place of an open one.
	Cover(file *os.File, source string) error
	// Add shows a file of the host, read-only, at a path that the image lacks.
	Add(source, target string) error
	// AddFile shows a file made for the step, read-only, at a path.
	AddFile(path string, content []byte) error
}

// Findings is what a container gets because of what is in the image.
type Findings struct {
	// Mounts come before those of the specification; Devices are patterns of the
	// host's device files; Env wins over the image's.
	Mounts  []specs.Mount `json:",omitempty"`
	Devices []string      `json:",omitempty"`
	Env     []string      `json:",omitempty"`
	// Links are made when all is mounted.
	Links []Link `json:",omitempty"`
	// Programs run as root, like those that the site's files describe.
	Programs []Program `json:",omitempty"`
	// Numbers change variables of the tasks.
	Numbers []Numbers `json:",omitempty"`
	// Warnings are told to the user, Notes if the user wants to hear more.
	Warnings []string `json:",omitempty"`
	Notes    []string `json:",omitempty"`
	// Laps are what hooks took; Inspect adds them.
	Laps []Lap `json:"-"`
	// Sources are paths of the host that were looked at, whether or not there is
	// something, as they were before.
	Sources []nodecache.File `json:"-"`
}

// Link is a symbolic link in the container. One that leads elsewhere makes room for
// it, any other file stays.
type Link struct{ Path, Target string }

// Program is an OCI hook; Origin names the file that asks for it, and Stage is one
// of the runtime specification's.
type Program struct {
	Origin, Stage string
	specs.Hook
}

// Numbers changes a variable that is a list of numbers, in each task: those that
// New has not are left out, and what is no number stays.
type Numbers struct {
	Variable string
	New      map[int]int
}

// Lap is what a hook took.
type Lap struct {
	Name  string
	Ended time.Time
	Took  time.Duration
}

// Image is what inspectors see: the image, and what those before them will show in
// it. Nothing is shown before all of them have decided, so a hook that fails leaves
// the image as it was.
type Image struct {
	root    Root
	covered map[inode]string
	added   map[string]string
	files   []shown
	// log says in the order of time what will be shown, and who will.
	log []string
}

// inode identifies a file.
type inode struct{ device, number uint64 }

// shown is a file of the host that will be shown: in place of an open one of the
// image, whose path is Target, or there where the image has none.
type shown struct {
	Target, Source string
	file           *os.File
	// content is of a file made for the step, which has no source.
	content []byte
}

// NewImage returns the image in a root file system.
func NewImage(root Root) *Image {
	return &Image{root: root, covered: map[inode]string{}, added: map[string]string{}}
}

// OpenFile is that of [Root].
func (i *Image) OpenFile(path string) (file *os.File, resolved string, err error) {
	return i.root.OpenFile(path)
}

// Covered returns the file of the host that will be shown in place of an open one,
// or "".
func (i *Image) Covered(file *os.File) string {
	id, err := identify(file)
	if err != nil {
		return ""
	}
	return i.covered[id]
}

// Added returns the file of the host that will be shown at a path that the image
// lacks, or "".
func (i *Image) Added(path string) string { return i.added[path] }

// Cover will show a file of the host in place of an open one of the image, which
// has that path. The first hook that wants to decides.
func (i *Image) Cover(file *os.File, path, source string) error {
	id, err := identify(file)
	if err != nil {
		return err
	}
	if i.covered[id] != "" {
		return nil
	}
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	i.covered[id] = source
	i.show(shown{Target: path, Source: source, file: os.NewFile(uintptr(fd), path)})
	return nil
}

// Add will show a file of the host at a path that the image lacks.
func (i *Image) Add(source, target string) error {
	if i.added[target] == "" {
		i.added[target] = source
		i.show(shown{Target: target, Source: source})
	}
	return nil
}

// AddFile will show a file made for the step at a path, whatever the image has there.
func (i *Image) AddFile(path string, content []byte) { i.show(shown{Target: path, content: content}) }

func (i *Image) show(s shown) {
	i.files = append(i.files, s)
	i.log = append(i.log, s.Source+"\x00"+s.Target)
}

// mount shows everything.
func (i *Image) mount() error {
	var errs []error
	for _, s := range i.files {
		switch {
		case s.content != nil:
			errs = append(errs, i.root.AddFile(s.Target, s.content))
		case s.file == nil:
			errs = append(errs, i.root.Add(s.Source, s.Target))
		default:
			errs = append(errs, i.root.Cover(s.file, s.Source))
		}
	}
	return errors.Join(errs...)
}

func (i *Image) close() {
	for _, s := range i.files {
		if s.file != nil {
			s.file.Close()
		}
	}
}

func identify(f *os.File) (inode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return inode{}, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return inode{uint64(st.Dev), st.Ino}, nil
}

// Cached is what earlier steps of an image found.
type Cached struct {
	Memory nodecache.Cache
	// Image identifies the content of the image, Version this program. An image
	// that is "" can change and is always looked at.
	Image, Version string
}

// remembered is what is kept of an inspector's work.
type remembered struct {
	Findings Findings
	Covers   []shown `json:",omitempty"`
	Adds     []shown `json:",omitempty"`
}

// Inspect lets each hook that wants to look at the image, and shows in it what they
// found.
func Inspect(hooks []Hook, root Root, spec *specs.Spec, r request.Request, known Cached) (Findings, error) {
	image := NewImage(root)
	defer image.close()
	var all Findings
	var errs []error
	for _, h := range hooks {
		inspector, ok := h.(Inspector)
		if !ok {
			continue
		}
		began := time.Now()
		found, err := known.inspect(inspector, image, spec, r)
		all.Laps = append(all.Laps, Lap{h.Name(), time.Now(), time.Since(began)})
		if err != nil {
			errs = append(errs, fmt.Errorf("hook %s: %w", h.Name(), err))
		}
		all.Mounts = append(all.Mounts, found.Mounts...)
		all.Devices = append(all.Devices, found.Devices...)
		all.Env = append(all.Env, found.Env...)
		all.Links = append(all.Links, found.Links...)
		all.Programs = append(all.Programs, found.Programs...)
		all.Numbers = append(all.Numbers, found.Numbers...)
		all.Warnings = append(all.Warnings, found.Warnings...)
		all.Notes = append(all.Notes, found.Notes...)
	}
	if err := errors.Join(errs...); err != nil {
		return Findings{}, err
	}
	if len(image.files) == 0 {
		return all, nil
	}
	began := time.Now()
	err := image.mount()
	all.Laps = append(all.Laps, Lap{"mounts", time.Now(), time.Since(began)})
	return all, err
}

func (k Cached) inspect(h Inspector, image *Image, spec *specs.Spec, r request.Request) (Findings, error) {
	remembers, ok := h.(CachedInspector)
	if !ok || k.Image == "" {
		return h.Inspect(image, spec, r)
	}
	inputs := append([]string{h.Name(), k.Version, k.Image}, remembers.Inputs(spec, r)...)
	key := strings.Join(append(inputs, image.log...), "\x00")
	var before remembered
	if k.Memory.Recall(key, &before) && image.repeat(before) {
		before.Findings.Notes = append(before.Findings.Notes, fmt.Sprintf("hook %s: known from an earlier step", h.Name()))
		return before.Findings, nil
	}
	from := len(image.files)
	found, err := h.Inspect(image, spec, r)
	if err != nil || found.Sources == nil {
		return found, err
	}
	now := remembered{Findings: found}
	for _, s := range image.files[from:] {
		if s.file == nil {
			now.Adds = append(now.Adds, s)
		} else {
			now.Covers = append(now.Covers, s)
		}
	}
	if err := k.Memory.Keep(key, now, found.Sources); err != nil {
		found.Notes = append(found.Notes, fmt.Sprintf("hook %s: cannot remember what it found: %v", h.Name(), err))
	}
	return found, nil
}

// repeat does what was done before, or nothing: this user may not be allowed to
// open what another one could.
func (i *Image) repeat(before remembered) bool {
	var opened []*os.File
	defer func() {
		for _, f := range opened {
			f.Close()
		}
	}()
	for _, c := range before.Covers {
		f, resolved, err := i.OpenFile(c.Target)
		if err != nil {
			return false
		}
		opened = append(opened, f)
		if resolved != c.Target || i.Covered(f) != "" {
			return false
		}
	}
	for n, c := range before.Covers {
		if i.Cover(opened[n], c.Target, c.Source) != nil {
			return false
		}
	}
	for _, a := range before.Adds {
		_ = i.Add(a.Source, a.Target) // cannot fail
	}
	return true
}
