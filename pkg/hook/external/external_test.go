// SPDX-License-Identifier: Apache-2.0

package external

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// document returns a descriptor with the given members besides those it needs.
func document(members string) string {
	text := `{"version": "1.0.0"`
	if strings.Contains(members, `"version"`) {
		text = `{"x": 0`
	}
	for _, m := range []string{`"hook": {"path": "/h"}`, `"when": {"always": true}`, `"stages": ["prestart"]`} {
		if name, _, _ := strings.Cut(m, ":"); !strings.Contains(members, name+":") {
			text += ", " + m
		}
	}
	return strings.Replace(text+members+"}", `"x": 0, `, "", 1)
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ in, err string }{
		{in: document("")},
		{in: document(`, "stages": ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]`)},
		{in: document(`, "hook": {"path": "/h", "args": ["h"], "env": ["A=", "B=c=d"], "timeout": 1}`)},
		{in: document(`, "when": {}`)},

		{in: ``, err: "EOF"},
		{in: `[]`, err: "cannot unmarshal array"},
		{in: document("") + "{}", err: "there is something behind the object"},
		{in: document(`, "cmds": []`), err: `unknown field "cmds"`},
		{in: document(`, "when": {"never": true}`), err: `unknown field "never"`},
		{in: document(`, "version": "0.1.0"`), err: `version "0.1.0": want "1.0.0"`},
		{in: document(`, "version": ""`), err: `version "": want "1.0.0"`},
		{in: document(`, "hook": {"path": "h"}`), err: `hook.path "h": want an absolute path`},
		{in: document(`, "hook": {"path": "/h", "timeout": 0}`), err: "hook.timeout 0: want more than zero"},
		{in: document(`, "hook": {"path": "/h", "env": ["A"]}`), err: `hook.env "A": want NAME=VALUE`},
		{in: document(`, "hook": {"path": "/h", "args": ["a\u0000b"]}`), err: "contains a NUL byte"},
		{in: document(`, "stages": []`), err: "stages: want at least one"},
		{in: document(`, "stages": ["precreate"]`), err: `stage "precreate" is unknown`},
		{in: document(`, "stages": ["prestart", "startContainer"]`), err: "stage startContainer does not exist here: "},
		{in: document(`, "when": {"annotations": {"(": "a"}}`), err: "when: error parsing regexp"},
		{in: document(`, "when": {"annotations": {"a": "["}}`), err: "when: error parsing regexp"},
		{in: document(`, "when": {"commands": ["*"]}`), err: "when: error parsing regexp"},
		{in: `{"hook": {"path": "h"}}`, err: "version \"\": want \"1.0.0\"\nhook.path \"h\": want an absolute path\nstages: want"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			_, err := parse([]byte(tt.in))
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("parse = %v; want %q", err, tt.err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(document(""))
	f.Add(document(`, "when": {"annotations": {"a": "b"}, "commands": ["c"], "hasBindMounts": true}`))
	f.Add(`{"version": null, "hook": null, "when": null, "stages": null}`)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parse([]byte(text))
		if err == nil && (d.Hook.Path == "" || len(d.Stages) == 0) {
			t.Errorf("parse(%q) = %+v", text, d)
		}
		if err == nil {
			d.When.holds(request.Request{Program: request.Program{Command: "c"}, Hooks: request.Hooks{Annotations: map[string]string{"a": "b"}}})
		}
	})
}

func TestHolds(t *testing.T) {
	mount := func(source string, site bool) request.Request {
		return request.Request{Filesystem: request.Filesystem{Mounts: []request.Mount{{Mount: option.Mount{Source: source, Target: "/t"}, Site: site}}}}
	}
	annotated := request.Request{Hooks: request.Hooks{Annotations: map[string]string{"com.a.on": "yes", "b": "2"}}, Program: request.Program{Command: "/usr/bin/app"}}
	for _, tt := range []struct {
		when  string
		words string
		r     request.Request
		want  bool
	}{
		{`{}`, "never", annotated, false},
		{`{"always": true}`, "always", request.Request{}, true},
		{`{"always": false, "commands": ["app"]}`, "never", annotated, false},
		{`{"annotations": {"on$": "yes|true"}}`, "annotation on$=yes|true", annotated, true},
		{`{"annotations": {"^on$": "yes"}}`, "annotation ^on$=yes", annotated, false},
		{`{"annotations": {"b": "yes"}}`, "annotation b=yes", annotated, false},
		{`{"annotations": {"b": "2", "^c$": ""}}`, "annotation ^c$=, annotation b=2", annotated, false},
		{`{"annotations": {"b": "2", "on": "yes"}}`, "annotation b=2, annotation on=yes", annotated, true},
		{`{"commands": ["^/usr", "x"]}`, "command ^/usr or x", annotated, true},
		{`{"commands": ["x"]}`, "command x", annotated, false},
		{`{"commands": ["app"], "annotations": {"^c$": ""}}`, "annotation ^c$=, command app", annotated, false},
		{`{"always": true, "commands": ["x"]}`, "command x", annotated, false},
		{`{"hasBindMounts": true}`, "the user mounts something", mount("/a", false), true},
		{`{"hasBindMounts": true}`, "the user mounts something", mount("/a", true), false},
		{`{"hasBindMounts": true}`, "the user mounts something", mount(option.Tmpfs, false), false},
		{`{"hasBindMounts": true}`, "the user mounts something", mount(option.Umount, false), false},
		{`{"hasBindMounts": false}`, "never", request.Request{}, false},
	} {
		d, err := parse([]byte(document(`, "when": ` + tt.when)))
		if err != nil {
			t.Fatal(err)
		}
		if got := d.When.holds(tt.r); got != tt.want {
			t.Errorf("%s holds for %+v: %v; want %v", tt.when, tt.r, got, tt.want)
		}
		if got := d.When.String(); got != tt.words {
			t.Errorf("%s in words is %q; want %q", tt.when, got, tt.words)
		}
	}
}

// needsRoot skips tests of files that must be root's.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: believes only files of root's")
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	needsRoot(t)
	first, second := t.TempDir(), t.TempDir()
	for path, program := range map[string]string{
		first + "/20-b.json": "/first", first + "/10-A.json": "/first", first + "/notes.txt": "/first",
		second + "/10-a.json": "/second", second + "/20-b.json": "/second", second + "/05.json": "/second",
	} {
		write(t, path, document(`, "hook": {"path": "`+program+`"}`), 0o644)
	}
	all, err := Load([]string{first, filepath.Join(first, "none"), second})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, d := range all {
		got += filepath.Base(d.Path) + " " + d.Hook.Path + "\n"
	}
	if want := "05.json /second\n10-A.json /first\n10-a.json /second\n20-b.json /second\n"; got != want {
		t.Errorf("Load = %s; want %s", got, want)
	}
}

// TestLoadDistrusts checks that what others could change is reported, and that the
// rest is there all the same.
func TestLoadDistrusts(t *testing.T) {
	needsRoot(t)
	for _, tt := range []struct {
		name   string
		change func(dir string) error
		err    string
		good   int
	}{
		{"nothing", func(string) error { return nil }, "", 2},
		{"a file that others may write to", func(dir string) error { return os.Chmod(dir+"/a.json", 0o666) }, "a.json (owner 0, mode 0666)", 1},
		{"another's file", func(dir string) error { return os.Chown(dir+"/a.json", 4711, 0) }, "a.json (owner 4711", 1},
		{"a directory that others may write to", func(dir string) error { return os.Chmod(dir, 0o777) }, "mode 0777)", 0},
		{"an empty directory that others may write to", func(dir string) error {
			return errors.Join(os.Remove(dir+"/a.json"), os.Remove(dir+"/b.json"), os.Chmod(dir, 0o777))
		}, "mode 0777)", 0},
		{"a link to another's file", func(dir string) error {
			other := filepath.Join(t.TempDir(), "x")
			return errors.Join(os.Rename(dir+"/a.json", other), os.Chown(other, 4711, 0), os.Symlink(other, dir+"/a.json"))
		}, "(owner 4711", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/a.json", document(""), 0o644)
			write(t, dir+"/b.json", document(""), 0o644)
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			all, err := Load([]string{dir})
			if len(all) != tt.good {
				t.Errorf("Load = %d hooks; want %d", len(all), tt.good)
			}
			if tt.err == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, trust.ErrTamperable) || !strings.Contains(err.Error(), tt.err) || fault.Hint(err) == "" {
				t.Errorf("Load = %v; want %q and a hint", err, tt.err)
			}
		})
	}
}

// TestOrder checks the order of hooks and what each notes in the specification.
func TestOrder(t *testing.T) {
	var all []Descriptor
	for name, stages := range map[string]string{"/1.json": `"poststart", "createContainer"`, "/2.json": `"createContainer", "prestart"`} {
		d, err := parse([]byte(document(`, "hook": {"path": "` + name + `"}, "stages": [` + stages + `]`)))
		if err != nil {
			t.Fatal(err)
		}
		d.Path = name
		all = append(all, d)
	}
	if all[0].Path == "/2.json" { // of a map
		all[0], all[1] = all[1], all[0]
	}
	hooks := Hooks(all, Options{})
	got := ""
	for _, h := range hooks {
		got += h.Name() + " " + h.Describe().Stage + " " + h.Describe().Effect + "\n"
	}
	want := "/2.json prestart runs /2.json\n/1.json createContainer runs /1.json\n/2.json createContainer runs /2.json\n/1.json poststart runs /1.json\n"
	if got != want {
		t.Errorf("Hooks = %s; want %s", got, want)
	}
	var s specs.Spec
	if err := hook.Edit(hooks, &s, request.Request{}); err != nil {
		t.Fatal(err)
	}
	if len(s.Hooks.CreateContainer) != 2 || s.Hooks.CreateContainer[0].Path != "/1.json" || len(s.Hooks.Poststart) != 1 || len(s.Hooks.CreateRuntime) != 0 {
		t.Errorf("Edit made %+v", s.Hooks)
	}
}

// runs runs a script as a hook and returns what it told.
func runs(t *testing.T, script, members string, change func(path string), o Options) (string, error) {
	t.Helper()
	needsRoot(t)
	path := filepath.Join(t.TempDir(), "program")
	write(t, path, "#!/bin/sh\n"+script, 0o755)
	change(path)
	d, err := parse([]byte(document(`, "hook": {"path": "` + path + `"` + members + `}`)))
	if err != nil {
		t.Fatal(err)
	}
	told := ""
	o.Tell = func(line string) { told += line + "\n" }
	d.Path = "/d.json"
	if o.Runner == nil {
		o.Runner = NewRunner()
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	err = Hooks([]Descriptor{d}, o)[0].(hook.Actor).Runtime(&specs.State{ID: "step-1.0", Pid: 7, Bundle: "/proc"})
	return told, err
}

func unchanged(string) {}

func TestRun(t *testing.T) {
	t.Setenv("SECRET", "job")
	told, err := runs(t, `cat; echo; env | sort; pwd; echo "$#" "$@"; echo error >&2; printf 'a\033b\n'`,
		`, "args": ["name", "a b"], "env": ["A=1"]`, unchanged, Options{})
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(told, "\n")
	if !strings.HasPrefix(first, "hook /d.json ran at prestart for ") {
		t.Errorf("told %q", first)
	}
	want := ""
	for _, line := range []string{`{"ociVersion":"","id":"step-1.0","status":"","pid":7,"bundle":"/proc"}`, "A=1", "PWD=/proc", "/proc", "1 a b", "error", "a?b"} {
		want += "hook /d.json: " + line + "\n"
	}
	if rest != want {
		t.Errorf("told %s\nwant %s", rest, want)
	}
}

func TestRunFails(t *testing.T) {
	for _, tt := range []struct {
		name, script, members string
		change                func(path string)
		verbose               bool
		err                   string
	}{
		{"status", "echo one; echo two >&2; exit 3", "", unchanged, false, "prestart: program: two (exit status 3)"},
		{"status, all that it wrote", "echo one; echo two >&2; exit 3", "", unchanged, true, "prestart: program: two (exit status 3); it wrote: one\ntwo"},
		{"signal", "kill -9 $$", "", unchanged, false, "prestart: program: signal: killed"},
		{"time", "sleep 60", `, "timeout": 1`, unchanged, false, "prestart: run program: killed after 1s, its time limit"},
		{"missing", "", "", func(p string) { os.Remove(p) }, false, "prestart: stat "},
		{"not executable", "", "", func(p string) { os.Chmod(p, 0o644) }, false, "prestart: run "},
		{"writable by others", "exit 0", "", func(p string) { os.Chmod(p, 0o757) }, false, "prestart: %s (owner 0, mode 0757): someone other than root"},
		{"writable by its group", "exit 0", "", func(p string) { os.Chmod(p, 0o775) }, false, "prestart: %s (owner 0, mode 0775): someone other than root"},
		{"another's", "exit 0", "", func(p string) { os.Chown(p, 4711, 0) }, false, "prestart: %s (owner 4711, mode 0755): someone other than root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := ""
			told, err := runs(t, tt.script, tt.members, func(p string) { path = p; tt.change(p) }, Options{Verbose: tt.verbose})
			want := strings.ReplaceAll(tt.err, "%s", path)
			if err == nil || !strings.HasPrefix(err.Error(), want) || fault.Hint(err) == "" {
				t.Errorf("Runtime = %v; want %q and a hint", err, want)
			}
			if told != "" {
				t.Errorf("told %q of a hook that failed", told)
			}
		})
	}
}

// TestStop checks that a program and its children are gone once Stop returns.
func TestStop(t *testing.T) {
	runner, child := NewRunner(), filepath.Join(t.TempDir(), "child")
	go func() {
		for {
			if text, err := os.ReadFile(child); err == nil && strings.HasSuffix(string(text), "\n") {
				break
			}
			time.Sleep(time.Millisecond)
		}
		runner.Stop()
	}()
	_, err := runs(t, fmt.Sprintf("sleep 60 & echo $! >%s; wait", child), "", unchanged, Options{Runner: runner})
	if err == nil || !strings.Contains(err.Error(), "the step has ended") {
		t.Errorf("Runtime = %v; want that the step has ended", err)
	}
	pid, err := os.ReadFile(child)
	if err != nil {
		t.Fatal(err)
	}
	// A zombie has no program.
	if exe, err := os.Readlink("/proc/" + strings.TrimSpace(string(pid)) + "/exe"); err == nil {
		t.Errorf("the program's child still runs: %s", exe)
	}
}

func TestOutputIsBounded(t *testing.T) {
	o := &output{}
	for range 100 {
		fmt.Fprintln(o, strings.Repeat("x", 99))
	}
	if text := o.String(); len(text) > outputLimit+20 || !strings.HasSuffix(text, "\n(and more)") {
		t.Errorf("kept %d bytes, ending %q", len(text), text[len(text)-20:])
	}
}
