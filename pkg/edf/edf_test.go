// SPDX-License-Identifier: Apache-2.0

package edf

import (
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/option"
)

// write makes files below a new directory and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func search(dir string) Search {
	env := map[string]string{"USER": "ada", "EMPTY": "", "SPACE": "a b,c:d"}
	return Search{
		Dirs:   []string{dir, filepath.Join(dir, "site")},
		Cwd:    filepath.Join(dir, "cwd"),
		Getenv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
}

func TestLoad(t *testing.T) {
	const image = "image = 'debian:12'\n"
	for _, tt := range []struct {
		name string
		text string
		want option.Set
		err  string
	}{
		{name: "nothing", text: "", want: option.Set{}},
		{name: "an image", text: image, want: option.Set{option.Image: "debian:12"}},
		{
			name: "all scalars", text: image + "workdir = '/w/${USER}'\nentrypoint = true\nwritable = false",
			want: option.Set{option.Image: "debian:12", option.Workdir: "/w/ada", option.Entrypoint: "1", option.Writable: "0"},
		},
		{name: "an empty scalar", text: "image = ''", want: option.Set{}},
		{
			name: "mounts", text: `mounts = ["/a:/b:ro+noexec", "/c,d:/e", "/f\\,g:/h", "./i:/i", "tmpfs:/t:size=1g"]`,
			want: option.Set{option.Mounts: `/a:/b:ro+noexec,/c\,d:/e,/f\,g:/h,CWD/i:/i,tmpfs:/t:size=1g`},
		},
		{
			name: "devices", text: `devices = ["/dev/fuse", "/dev/a,b:/dev/b", "/dev/c:/dev/d:rw", "nvidia.com/gpu=all"]`,
			want: option.Set{option.Device: `/dev/fuse,/dev/a\,b:/dev/b,/dev/c:/dev/d:rw,nvidia.com/gpu=all`},
		},
		{
			name: "variables", text: "[env]\nB = '${USER}-${NONE:-x}'\nA = 'a,b=c'\nGONE = ''\nLITERAL = '$${USER} $HOME'",
			want: option.Set{option.Env: `A=a\,b=c,B=ada-x,-GONE,LITERAL=${USER} $HOME`},
		},
		{
			name: "annotations", text: "[annotations]\ncom.x.a = true\n[annotations.com.y]\nb = 'c,d'\nn = 3",
			want: option.Set{option.Annotation: `com.x.a=true,com.y.b=c\,d,com.y.n=3`},
		},
		{name: "an empty variable", text: "workdir = '/w${EMPTY}/${EMPTY:-d}'", want: option.Set{option.Workdir: "/w/d"}},

		{name: "unknown keys", text: image + "\nimgae = 1\n[env]\nA = 'b'\n[mount]\nx = 1", err: "unknown key imgae in FILE:3\nunknown key mount in FILE:6"},
		{name: "no TOML", text: "image =", err: "FILE:1: "},
		{name: "another type", text: "writable = 'no'", err: "incompatible types"},
		{name: "an undefined variable", text: "\nworkdir = '/${NONE}'", err: "FILE:2: workdir: variable NONE is not set; ${NONE:-} allows that"},
		{name: "no end of a variable", text: "image = '${USER'", err: `FILE:1: image: "${USER": no } after ${`},
		{name: "no name of a variable", text: "image = '${}'", err: "FILE:1: image: ${}: want ${NAME} or ${NAME:-TEXT}"},
		{name: "a command", text: "image = '${USER:=x}'", err: "want ${NAME} or ${NAME:-TEXT}"},
		{name: "a mount", text: "\n\nmounts = ['a:/b']", err: `FILE:3: mounts: "a:/b": source "a" does not start with / or .`},
		{name: "a device elsewhere", text: "devices = ['/etc/passwd']", err: `FILE:1: devices: "/etc/passwd": want a path below /dev`},
		{name: "a device of no kind", text: "devices = ['gpu=all']", err: "want VENDOR/CLASS=NAME, a path below /dev, or none"},
		{name: "permissions", text: "devices = ['/dev/a:/dev/b:x']", err: "want PATH[:DST[:rwm]]"},
		{name: "a number in env", text: "[env]\nA = 1", err: "FILE:2: env.A: want a string"},
		{name: "no name in env", text: "[env]\n'A B' = '1'", err: `FILE:2: env.A B: --container-env: "A B" is not the name of a variable`},
		{name: "a list in annotations", text: "[annotations]\na = [1]", err: "FILE:2: annotations.a: want a string, a number or a boolean"},
		{name: "all mistakes", text: "image = '${}'\nworkdir = '${}'", err: "FILE:1: image: ${}: want ${NAME} or ${NAME:-TEXT}\nFILE:2: workdir"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := write(t, map[string]string{"x.toml": tt.text})
			got, err := Load("x", search(dir))
			if tt.err != "" {
				want := strings.ReplaceAll(tt.err, "FILE", filepath.Join(dir, "x.toml"))
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("Load = %q, %v; want an error with %q", got, err, want)
				}
				return
			}
			if m, ok := tt.want[option.Mounts]; ok {
				tt.want[option.Mounts] = strings.ReplaceAll(m, "CWD", filepath.Join(dir, "cwd"))
			}
			if err != nil || !maps.Equal(got, tt.want) {
				t.Fatalf("Load = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestLoadBases(t *testing.T) {
	files := map[string]string{
		"one.toml":       "image = 'one'\nworkdir = '/one'\nmounts = ['/one']\n[env]\nA = '1'\nB = '1'",
		"two.toml":       "base_environment = 'one'\nimage = 'two'\nmounts = ['/two']\n[env]\nB = ''",
		"both.toml":      "base_environment = ['two', 'site-only']\nmounts = ['/both']",
		"site/one.toml":  "image = 'not this one'",
		"site-only.toml": "writable = false",
		"loop.toml":      "base_environment = 'pool'",
		"pool.toml":      "base_environment = ['one', 'loop']",
		"lost.toml":      "base_environment = 'nowhere'",
		"number.toml":    "base_environment = 1",
		"cwd/here.toml":  "image = 'here'\nbase_environment = '../one.toml'",
	}
	for i := range 12 {
		wide := strconv.Itoa(i)
		files["wide"+wide+".toml"] = "base_environment = ['wide" + strconv.Itoa(i+1) + "', 'wide" + strconv.Itoa(i+1) + "', 'wide" + strconv.Itoa(i+1) + "']"
		files[string(rune('a'+i))+".toml"] = "base_environment = '" + string(rune('a'+i+1)) + "'"
	}
	files["m.toml"] = "image = 'deep'"
	files["wide12.toml"] = ""
	files["huge.toml"] = "#" + strings.Repeat("x", 1<<20)
	dir := write(t, files)
	for _, tt := range []struct {
		name string
		want option.Set
		err  string
	}{
		{name: "two", want: option.Set{option.Image: "two", option.Workdir: "/one", option.Mounts: "/one,/two", option.Env: "A=1,-B"}},
		{name: "both", want: option.Set{option.Image: "two", option.Workdir: "/one", option.Mounts: "/one,/two,/both", option.Env: "A=1,-B", option.Writable: "0"}},
		{name: "./here.toml", want: option.Set{option.Image: "here", option.Workdir: "/one", option.Mounts: "/one", option.Env: "A=1,B=1"}},
		{name: "here.toml", want: option.Set{option.Image: "here", option.Workdir: "/one", option.Mounts: "/one", option.Env: "A=1,B=1"}},
		{name: dir + "/site-only.toml", want: option.Set{option.Writable: "0"}},
		{name: "c", want: option.Set{option.Image: "deep"}},

		{name: "none", err: "read environment definition none: no none.toml in " + dir + ", " + dir + "/site"},
		{name: "./none", err: "read environment definition ./none: open " + dir + "/cwd/none: no such file"},
		{name: "lost", err: "read environment definition nowhere, named in " + dir + "/lost.toml: no nowhere.toml in "},
		{name: "loop", err: "base_environment: " + dir + "/loop.toml is based on itself"},
		{name: "a", err: "base_environment: more than 10 levels"},
		{name: "wide3", err: "more than 200 files are read for it"},
		{name: "huge", err: "huge.toml: too large: the limit is 1 MiB"},
		{name: "number", err: "base_environment is neither a name nor a list of names"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Load(tt.name, search(dir))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("Load = %q, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || !maps.Equal(got, tt.want) {
				t.Fatalf("Load = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestDirs(t *testing.T) {
	for path, want := range map[string]string{"": "/h/.edf /site", "/a:/b": "/a /b /site"} {
		got := Dirs("/h", []string{"/site"}, func(name string) (string, bool) { return path, name == PathVariable })
		if strings.Join(got, " ") != want {
			t.Errorf("Dirs with %s=%s = %q; want %q", PathVariable, path, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"${USER}", "$${USER}", "${A:-b}", "${", "$", "}", "${USER}${", "$$${USER}"} {
		f.Add(seed)
	}
	in := file{search: search("/")}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := in.expand(text)
		if err == nil && !strings.Contains(text, "${") && got != text {
			t.Errorf("expand(%q) = %q", text, got)
		}
	})
}
