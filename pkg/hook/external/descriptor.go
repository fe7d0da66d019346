// SPDX-License-Identifier: Apache-2.0

package external

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// version is that of the descriptors' schema, oci-hooks(5).
const version = "1.0.0"

// Descriptor is a file that describes a hook.
type Descriptor struct {
	// Path is where the file is.
	Path    string     `json:"-"`
	Version string     `json:"version"`
	Hook    specs.Hook `json:"hook"`
	When    when       `json:"when"`
	Stages  []string   `json:"stages"`
}

// when has the conditions. All that are there must hold.
type when struct {
	Always        *bool             `json:"always"`
	Annotations   map[string]string `json:"annotations"`
	Commands      []string          `json:"commands"`
	HasBindMounts *bool             `json:"hasBindMounts"`

	annotations []annotation
	commands    []*regexp.Regexp
}

type annotation struct{ key, value *regexp.Regexp }

// stages are the names that oci-hooks(5) has for the stages of a container, in order.
// Those with a reason do not exist here.
var stages = []struct{ name, missing string }{
	{name: "prestart"},
	{name: "createRuntime"},
	{name: "createContainer"},
	{name: "startContainer", missing: "it would run a program of the image as root; use createContainer"},
	{name: "poststart"},
	{name: "poststop"},
}

// Load reads the descriptors in the directories, in the order of their file
// names. Of two with the same name the one in the later directory counts. A
// directory that is not there has none. All that is wrong is reported, and what
// is right is returned with it: a file that cannot be believed must not be
// passed over in silence, since it may be the one that a site relies on.
func Load(directories []string) ([]Descriptor, error) {
	paths := map[string]string{}
	var errs []error
	for _, dir := range directories {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = trust.Check(dir)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read hooks: %w", withHint(err)))
			continue
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".json") {
				paths[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	var all []Descriptor
	for _, name := range slices.SortedFunc(maps.Keys(paths), byName) {
		d, err := load(paths[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("read hook %s: %w", paths[name], err))
			continue
		}
		all = append(all, d)
	}
	return all, errors.Join(errs...)
}

// byName compares names as oci-hooks(5) orders them, without regard to case.
func byName(a, b string) int {
	return cmp.Or(cmp.Compare(strings.ToLower(a), strings.ToLower(b)), cmp.Compare(a, b))
}

func load(path string) (Descriptor, error) {
	text, err := trust.Read(path)
	if err != nil {
		return Descriptor{}, withHint(err)
	}
	d, err := parse(text)
	d.Path = path
	return d, err
}

// withHint says what to do about what others could change.
func withHint(err error) error {
	if errors.Is(err, trust.ErrTamperable) {
		return fault.WithHint(err, "the administrator must give it, and the directories above, to root and let nobody else write there")
	}
	return err
}

func parse(text []byte) (Descriptor, error) {
	var d Descriptor
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return d, err
	}
	if decoder.More() {
		return d, errors.New("there is something behind the object")
	}
	return d, errors.Join(d.checkVersion(), d.checkHook(), d.checkStages(), d.When.compile())
}

func (d Descriptor) checkVersion() error {
	if d.Version != version {
		return fmt.Errorf("version %q: want %q", d.Version, version)
	}
	return nil
}

func (d Descriptor) checkHook() error {
	var errs []error
	if !filepath.IsAbs(d.Hook.Path) {
		errs = append(errs, fmt.Errorf("hook.path %q: want an absolute path", d.Hook.Path))
	}
	if t := d.Hook.Timeout; t != nil && *t <= 0 {
		errs = append(errs, fmt.Errorf("hook.timeout %d: want more than zero", *t))
	}
	for _, v := range d.Hook.Env {
		if strings.IndexByte(v, '=') < 1 {
			errs = append(errs, fmt.Errorf("hook.env %q: want NAME=VALUE", v))
		}
	}
	for _, word := range slices.Concat([]string{d.Hook.Path}, d.Hook.Args, d.Hook.Env) {
		if strings.IndexByte(word, 0) >= 0 {
			errs = append(errs, fmt.Errorf("hook: %q contains a NUL byte", word))
		}
	}
	return errors.Join(errs...)
}

func (d Descriptor) checkStages() error {
	if len(d.Stages) == 0 {
		return errors.New("stages: want at least one")
	}
	var errs []error
	for _, name := range d.Stages {
		errs = append(errs, checkStage(name))
	}
	return errors.Join(errs...)
}

func checkStage(name string) error {
	for _, s := range stages {
		switch {
		case s.name != name:
		case s.missing != "":
			return fmt.Errorf("stage %s does not exist here: %s", name, s.missing)
		default:
			return nil
		}
	}
	return fmt.Errorf("stage %q is unknown", name)
}

// compile reads the regular expressions.
func (w *when) compile() error {
	var errs []error
	read := func(text string) *regexp.Regexp {
		r, err := regexp.Compile(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("when: %w", err))
		}
		return r
	}
	for _, key := range slices.Sorted(maps.Keys(w.Annotations)) {
		w.annotations = append(w.annotations, annotation{read(key), read(w.Annotations[key])})
	}
	for _, text := range w.Commands {
		w.commands = append(w.commands, read(text))
	}
	return errors.Join(errs...)
}

// holds tells whether the conditions hold for the step, as Podman decides it:
// all that are there do, and there is at least one.
func (w when) holds(r request.Request) bool {
	switch {
	case w.isEmpty():
		return false
	case w.Always != nil && !*w.Always:
		return false
	case w.HasBindMounts != nil && !(*w.HasBindMounts && hasBindMounts(r)):
		return false
	case len(w.commands) > 0 && !slices.ContainsFunc(w.commands, func(c *regexp.Regexp) bool { return c.MatchString(r.Command) }):
		return false
	}
	for _, a := range w.annotations {
		if !a.in(r.Annotations) {
			return false
		}
	}
	return true
}

func (w when) isEmpty() bool {
	return w.Always == nil && w.HasBindMounts == nil && len(w.commands) == 0 && len(w.annotations) == 0
}

func (a annotation) in(all map[string]string) bool {
	for key, value := range all {
		if a.key.MatchString(key) && a.value.MatchString(value) {
			return true
		}
	}
	return false
}

// hasBindMounts tells whether the user asked for files of the host.
func hasBindMounts(r request.Request) bool {
	return slices.ContainsFunc(r.Mounts, func(m request.Mount) bool {
		return !m.Site && m.Source != option.Tmpfs && m.Source != option.Umount
	})
}

// String says in words when the hook runs.
func (w when) String() string {
	var parts []string
	if w.isEmpty() || w.Always != nil && !*w.Always || w.HasBindMounts != nil && !*w.HasBindMounts {
		return "never"
	}
	for _, key := range slices.Sorted(maps.Keys(w.Annotations)) {
		parts = append(parts, fmt.Sprintf("annotation %s=%s", key, w.Annotations[key]))
	}
	if len(w.Commands) > 0 {
		parts = append(parts, "command "+strings.Join(w.Commands, " or "))
	}
	if w.HasBindMounts != nil {
		parts = append(parts, "the user mounts something")
	}
	if len(parts) == 0 {
		return "always"
	}
	return strings.Join(parts, ", ")
}
