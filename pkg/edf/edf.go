// SPDX-License-Identifier: Apache-2.0

// Package edf reads environment definition files: what a container shall be, in
// TOML, under a name (--environment=NAME). They are the user's, or the site's
// offer, and say nothing that options could not say.
//
// [Load] finds the file, reads it and those it is based on, and returns options.
// It runs where the step is submitted, as the user.
//
//	base_environment = "other"            # or a list, in order; 10 levels
//	image = "debian:12"
//	mounts = ["${SCRATCH}/in:/data:ro"]   # as --container-mounts, one per entry
//	workdir = "/data"
//	entrypoint = true
//	writable = false
//	devices = ["nvidia.com/gpu=0", "/dev/fuse"]   # as --container-device
//	[env]
//	MODE = "fast"                         # "" removes the variable
//	[annotations]
//	com.example.key = "value"             # tables are flattened: com.example.key
//
// Of what stands in several files the last wins, the file itself after its
// bases; mounts, devices, env and annotations add up.
//
// In all values but those of base_environment ${NAME} is a variable of the
// caller's, which must be set, ${NAME:-TEXT} has a default, and $${NAME} is
// ${NAME} itself.
package edf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/regular"
)

// Search says where files are looked for, and what they may refer to.
type Search struct {
	// Dirs are looked through for NAME.toml, in order.
	Dirs []string
	// Cwd is what relative paths of files and mounts start at.
	Cwd string
	// Getenv returns a variable of the caller's.
	Getenv func(name string) (value string, ok bool)
}

// PathVariable lists the user's directories of files, separated by colons.
const PathVariable = "EDF_PATH"

// Dirs returns the user's directories and then the site's.
func Dirs(home string, site []string, getenv func(string) (string, bool)) []string {
	dirs := []string{filepath.Join(home, ".edf")}
	if text, ok := getenv(PathVariable); ok && text != "" {
		dirs = filepath.SplitList(text)
	}
	return append(dirs, site...)
}

// Load returns what the file of that name or path asks for.
func Load(name string, s Search) (option.Set, error) {
	var b builder
	if err := b.add(name, s, nil); err != nil {
		return nil, err
	}
	return b.options(), nil
}

// find returns the path of a file. What begins with a slash or a dot, or ends
// with ".toml", is a path.
func find(name string, s Search) (string, error) {
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".toml") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(s.Cwd, name)
		}
		return name, nil
	}
	for _, dir := range s.Dirs {
		path := filepath.Join(dir, name+".toml")
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
	}
	return "", fault.WithHint(fmt.Errorf("no %s.toml in %s", name, strings.Join(s.Dirs, ", ")),
		"name a file that begins with / or ., or set "+PathVariable)
}

// document is a file. Absent keys are nil.
type document struct {
	Base        names          `toml:"base_environment"`
	Image       *string        `toml:"image"`
	Workdir     *string        `toml:"workdir"`
	Entrypoint  *bool          `toml:"entrypoint"`
	Writable    *bool          `toml:"writable"`
	Mounts      []string       `toml:"mounts"`
	Devices     []string       `toml:"devices"`
	Env         map[string]any `toml:"env"`
	Annotations table          `toml:"annotations"`
}

// table is a table of tables. It decodes itself, or the decoder would take its
// keys for unknown ones.
type table map[string]any

// UnmarshalTOML implements toml.Unmarshaler.
func (t *table) UnmarshalTOML(value any) error {
	m, ok := value.(map[string]any)
	if !ok {
		return errors.New("annotations is not a table")
	}
	*t = m
	return nil
}

// names is a string or a list of them.
type names []string

// UnmarshalTOML implements toml.Unmarshaler.
func (n *names) UnmarshalTOML(value any) error {
	list, isList := value.([]any)
	if !isList {
		list = []any{value}
	}
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return errors.New("base_environment is neither a name nor a list of names")
		}
		*n = append(*n, s)
	}
	return nil
}

// builder adds up files.
type builder struct {
	set         option.Set
	mounts      []string // escaped for --container-mounts
	devices     []string // escaped for --container-device
	env         map[string]string
	annotations map[string]string
	files       int // so many were read
}

// Limits of what is read: how deep files are based on others, how many are read in all,
// and the size of one. A file may be named by several.
const (
	maxLevels = 10
	maxFiles  = 200
	maxSize   = 1 << 20
)

// add adds a file after those that it is based on; above are the files that led
// to it.
func (b *builder) add(name string, s Search, above []string) error {
	path, err := find(name, s)
	if err == nil && slices.Contains(above, path) {
		err = fmt.Errorf("base_environment: %s is based on itself", path)
	}
	if err == nil && len(above) > maxLevels {
		err = fmt.Errorf("base_environment: more than %d levels", maxLevels)
	}
	if err != nil {
		return inFile(above, name, err)
	}
	if b.files++; b.files > maxFiles {
		return inFile(above, name, fmt.Errorf("more than %d files are read for it", maxFiles))
	}
	text, err := regular.Read(path, maxSize)
	if err != nil {
		return inFile(above, name, err)
	}
	var d document
	if err := config.Decode(path, text, &d); err != nil {
		return fmt.Errorf("read environment definition: %w", err)
	}
	for _, base := range d.Base {
		if err := b.add(base, s, append(slices.Clone(above), path)); err != nil {
			return err
		}
	}
	return b.take(file{path, text, s}, d)
}

// inFile says which file named what cannot be read.
func inFile(above []string, name string, err error) error {
	if len(above) > 0 {
		return fmt.Errorf("read environment definition %s, named in %s: %w", name, above[len(above)-1], err)
	}
	return fmt.Errorf("read environment definition %s: %w", name, err)
}

// file is the file that values come from.
type file struct {
	path   string
	text   []byte
	search Search
}

// fail returns an error about a key of the file.
func (f file) fail(err error, key ...string) error {
	return fmt.Errorf("%s:%d: %s: %w", f.path, config.LineOf(f.text, key), strings.Join(key, "."), err)
}

// take adds the values of one file. All mistakes are reported.
func (b *builder) take(f file, d document) error {
	if b.set == nil {
		b.set, b.env, b.annotations = option.Set{}, map[string]string{}, map[string]string{}
	}
	errs := []error{b.scalar(f, option.Image, "image", d.Image), b.scalar(f, option.Workdir, "workdir", d.Workdir)}
	b.flag(option.Entrypoint, d.Entrypoint)
	b.flag(option.Writable, d.Writable)
	for _, m := range d.Mounts {
		errs = append(errs, b.mount(f, m))
	}
	for _, device := range d.Devices {
		errs = append(errs, b.device(f, device))
	}
	errs = append(errs, b.variables(f, d.Env), b.annotate(f, []string{"annotations"}, d.Annotations))
	return errors.Join(errs...)
}

func (b *builder) scalar(f file, name, key string, value *string) error {
	if value == nil {
		return nil
	}
	text, err := f.expand(*value)
	if err != nil {
		return f.fail(err, key)
	}
	if text == "" { // as if it were not there: a base's is taken back
		delete(b.set, name)
		return nil
	}
	b.set[name] = text
	return nil
}

func (b *builder) flag(name string, value *bool) {
	if value != nil {
		b.set[name] = map[bool]string{true: "1", false: "0"}[*value]
	}
}

// mount adds an entry of --container-mounts. A comma in it is part of a path,
// and a relative source starts where the file is used.
func (b *builder) mount(f file, entry string) error {
	const key = "mounts"
	text, err := f.expand(entry)
	if err != nil {
		return f.fail(err, key)
	}
	text = escapeCommas(text)
	mounts, err := option.ParseMounts(text)
	if err != nil {
		return f.fail(errors.New(strings.TrimPrefix(err.Error(), "--"+option.Mounts+": ")), key)
	}
	for _, m := range mounts {
		if m.IsRelative() {
			m.Source = filepath.Join(f.search.Cwd, m.Source)
			text = m.String()
		}
	}
	b.mounts = append(b.mounts, text)
	return nil
}

// device adds an entry of --container-device. A comma in it is part of a path.
func (b *builder) device(f file, entry string) error {
	text, err := f.expand(entry)
	if err != nil {
		return f.fail(err, "devices")
	}
	text = escapeCommas(text)
	if _, err := option.ParseDevices(text); err != nil {
		return f.fail(errors.New(strings.TrimPrefix(err.Error(), "--"+option.Device+": ")), "devices")
	}
	b.devices = append(b.devices, text)
	return nil
}

// escapeCommas makes all commas of an entry part of it.
func escapeCommas(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, `\,`, ","), ",", `\,`)
}

func (b *builder) variables(f file, env map[string]any) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(env)) {
		text, isString := env[name].(string)
		if !isString {
			errs = append(errs, f.fail(errors.New("want a string"), "env", name))
			continue
		}
		value, err := f.expand(text)
		if err == nil {
			_, err = option.ParseEnv(option.Escape(name) + "=")
		}
		if err != nil {
			errs = append(errs, f.fail(err, "env", name))
			continue
		}
		b.env[name] = value
	}
	return errors.Join(errs...)
}

func (b *builder) annotate(f file, key []string, table map[string]any) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(table)) {
		at := append(slices.Clone(key), name)
		switch v := table[name].(type) {
		case map[string]any:
			errs = append(errs, b.annotate(f, at, v))
		case []any, []map[string]any:
			errs = append(errs, f.fail(errors.New("want a string, a number or a boolean"), at...))
		default:
			text, err := f.expand(fmt.Sprint(v))
			if err != nil {
				errs = append(errs, f.fail(err, at...))
			}
			b.annotations[strings.Join(at[1:], ".")] = text
		}
	}
	return errors.Join(errs...)
}

// options returns all that was added up.
func (b *builder) options() option.Set {
	join := func(name string, entries []string) {
		if len(entries) > 0 {
			b.set[name] = strings.Join(entries, ",")
		}
	}
	join(option.Mounts, b.mounts)
	join(option.Device, b.devices)
	var env, annotations []string
	for _, name := range slices.Sorted(maps.Keys(b.env)) {
		if b.env[name] == "" {
			env = append(env, "-"+name)
			continue
		}
		env = append(env, name+"="+option.Escape(b.env[name]))
	}
	join(option.Env, env)
	for _, name := range slices.Sorted(maps.Keys(b.annotations)) {
		annotations = append(annotations, option.Escape(name)+"="+option.Escape(b.annotations[name]))
	}
	join(option.Annotation, annotations)
	return b.set
}
