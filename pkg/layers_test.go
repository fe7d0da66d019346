// SPDX-License-Identifier: Apache-2.0

// Package pkg_test holds the rules that no single package can keep: which
// package may import which, and what the repository says about itself.
package pkg_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/brolga-hpc/brolga"

// layers lists the packages of pkg/ from the bottom up. A package may import
// only packages of earlier layers, or its own subpackages. A new package fails
// this test until someone decides where it belongs.
var layers = [][]string{
	{"fault", "budget", "process", "reception", "safefile", "identity"},
	{"wire", "trust", "regular", "command", "mountns", "userns", "ldso", "image/lease", "expire", "image/slot", "ssh/realm", "ssh/dial", "ssh/server"},
	{"policy", "nodecache", "audit"},
	{"config"},
	{"option", "slurm", "seccomp", "sandbox", "label", "image/ref", "image/credential", "account"},
	{"request", "edf", "device", "barrier", "image/layout", "userfile", "ssh/setup"},
	{"ssh/files"},
	{"step", "ssh/client", "image/pull", "image/load", "image/resolve", "image/signature", "image/squash", "image/store", "device/cdi", "seccomp/compile", "named"},
	{"image", "image/convert", "image/export", "image/fetch", "hook", "bundle/rootfs", "bundle/spec"},
	{"bundle", "hook/external", "hook/replace", "standalone", "save"},
	{"container"},
	{"task"},
	{"engine"},
}

// only lists imports that are single on purpose, and who has them. The prefix
// stands for all packages below it.
var only = []struct {
	prefix string
	in     []string
}{
	{"os/exec", []string{"pkg/command", "pkg/ssh/server"}},
	{"golang.org/x/crypto/ssh", []string{"pkg/ssh/files", "pkg/ssh/server", "pkg/ssh/client"}},
	{"github.com/pkg/sftp", []string{"pkg/ssh/server"}},
	{"github.com/opencontainers/runc/libcontainer", []string{"pkg/container", "cmd/brolga-helper"}},
	{"github.com/opencontainers/cgroups", []string{"pkg/container"}},
	{"github.com/google/go-containerregistry", []string{"pkg/image/pull"}},
	{"net/http", []string{"pkg/image/pull"}},
	{"github.com/klauspost/compress", []string{"pkg/image/load", "pkg/image/squash"}},
	{"github.com/BurntSushi/toml", []string{"pkg/config"}},
	{"tags.cncf.io/container-device-interface/pkg/cdi", []string{"pkg/device/cdi"}},
	{"github.com/seccomp/libseccomp-golang", []string{"pkg/seccomp/compile"}},
	{"github.com/moby/profiles/seccomp", []string{"pkg/seccomp/compile"}},
	{"github.com/sigstore", []string{"pkg/image/signature"}},
}

// listed is what "go list" says of a package.
type listed struct {
	ImportPath string
	Imports    []string
	Standard   bool
	Doc        string
	Name       string
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Standard,Doc,Name"}, args...)...)
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []listed
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p listed
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	return packages
}

func TestLayers(t *testing.T) {
	level := map[string]int{}
	for i, layer := range layers {
		for _, p := range layer {
			level[path.Join(module, "pkg", p)] = i
		}
	}
	for _, p := range list(t, "./pkg/...") {
		from, known := level[p.ImportPath]
		if !known {
			if p.ImportPath != path.Join(module, "pkg") && !strings.Contains(p.ImportPath, "/internal/") {
				t.Errorf("%s is in no layer: add it to the table", p.ImportPath)
			}
			continue
		}
		delete(level, p.ImportPath)
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module) || strings.HasPrefix(imp, p.ImportPath+"/") {
				continue
			}
			if to := levelOf(imp); to < 0 || to >= from {
				t.Errorf("%s imports %s, which is not below it", p.ImportPath, imp)
			}
		}
	}
	for p := range level {
		t.Errorf("%s is in the table, but there is no such package", p)
	}
}

// levelOf returns the layer of a package, or -1.
func levelOf(importPath string) int {
	name := strings.TrimPrefix(importPath, path.Join(module, "pkg")+"/")
	return slices.IndexFunc(layers, func(layer []string) bool { return slices.Contains(layer, name) })
}

func TestSingleImports(t *testing.T) {
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imp := range p.Imports {
			for _, rule := range only {
				if isBelow(imp, rule.prefix) && !slices.Contains(rule.in, name) {
					t.Errorf("%s imports %s: only %v may", name, imp, rule.in)
				}
			}
			if name == "cmd/brolga-helper" && strings.HasPrefix(imp, "github.com/opencontainers/runc/") && !strings.HasSuffix(imp, "/nsenter") {
				t.Errorf("%s imports %s: only nsenter, for its constructor", name, imp)
			}
		}
	}
}

// isBelow tells whether a package has the path or is below it.
func isBelow(importPath, prefix string) bool {
	return importPath == prefix || strings.HasPrefix(importPath, prefix+"/")
}

// TestLinked checks what must not be in a program, however it would get there:
// the library is loaded into srun, and the helper starts twice per step.
func TestLinked(t *testing.T) {
	for _, tt := range []struct {
		program   string
		forbidden []string
	}{
		{"./cmd/libbrolga", []string{
			"net", "net/http", "os/exec", "plugin", "golang.org/x/crypto/ssh", "github.com/opencontainers/runc", "github.com/google/go-containerregistry",
			module + "/pkg/command", module + "/pkg/engine", module + "/pkg/container", module + "/pkg/image/pull", module + "/pkg/image/signature",
		}},
		{"./cmd/brolga-helper", []string{"net/http", "golang.org/x/crypto/ssh", "github.com/google/go-containerregistry", module + "/pkg/image/pull", module + "/pkg/image/squash", module + "/pkg/image/signature", "go.yaml.in/yaml", "github.com/seccomp", "github.com/moby/profiles"}},
		{"./cmd/brolga-ssh", []string{"net/http", "github.com/opencontainers/runc", module + "/pkg/container", module + "/pkg/engine"}},
		{"./cmd/brolga", []string{"github.com/opencontainers/runc", "github.com/opencontainers/cgroups"}},
	} {
		for _, p := range list(t, "-deps", tt.program) {
			for _, f := range tt.forbidden {
				if p.ImportPath == f || (f != "net" && isBelow(p.ImportPath, f)) {
					t.Errorf("%s links %s", tt.program, p.ImportPath)
				}
			}
		}
	}
}

// TestPackagesAreDocumented checks that each package says what it is for.
func TestPackagesAreDocumented(t *testing.T) {
	for _, p := range list(t, "./...") {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + path.Base(p.ImportPath) + " "
		}
		isProgram := p.Name == "main" && strings.HasPrefix(strings.ToLower(p.Doc), path.Base(p.ImportPath)+" ")
		if p.ImportPath != path.Join(module, "pkg") && !strings.HasPrefix(p.Doc, want) && !isProgram {
			t.Errorf("%s: its comment begins %q; want %q", p.ImportPath, p.Doc, want)
		}
	}
}

// TestDependenciesAreJustified checks that DEPENDENCIES.md has a row for each
// direct requirement, and none for another.
func TestDependenciesAreJustified(t *testing.T) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []any
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	if len(mod.Replace) > 0 {
		t.Error("go.mod replaces modules")
	}
	text, err := os.ReadFile("../DEPENDENCIES.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for _, r := range mod.Require {
		if row := strings.Contains(string(text), "\n| `"+r.Path+"` |"); row == r.Indirect {
			t.Errorf("%s: direct dependency %v, row in DEPENDENCIES.md %v", r.Path, !r.Indirect, row)
		}
		if !r.Indirect {
			direct++
		}
	}
	if direct == 0 || direct > 15 {
		t.Errorf("%d direct dependencies; want 1 to 15: run go mod tidy", direct)
	}
}

// TestCompatibilityNamesTests checks that docs/compatibility.md names a test that
// exists for each behaviour that it says is there.
func TestCompatibilityNamesTests(t *testing.T) {
	text, err := os.ReadFile("../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " |")
		if !strings.HasPrefix(line, "| ") || len(cells) < 4 || strings.HasPrefix(line, "| behaviour") {
			continue
		}
		rows++
		verdict, test := strings.TrimSpace(cells[1]), strings.TrimSpace(strings.TrimSuffix(cells[3], "|"))
		if test == "" && verdict == "not applicable" {
			continue
		}
		if !testExists(test) {
			t.Errorf("%s: there is no test %q", cells[0], test)
		}
	}
	if rows < 50 {
		t.Errorf("%d rows; the table is not read", rows)
	}
}

// TestCompatibilityIsComplete checks that the rows exist that docs/compatibility.md
// names for the tests of Sarus and pyxis, and that no test of theirs got lost.
func TestCompatibilityIsComplete(t *testing.T) {
	text, err := os.ReadFile("../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	table, theirs, found := strings.Cut(string(text), "## Their tests, one by one")
	if !found {
		t.Fatal("there is no list of their tests")
	}
	_, pyxis, _ := strings.Cut(theirs, "\npyxis, ")
	suites, tests := 0, 0
	for line := range strings.Lines(theirs) {
		cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), " |"), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 2 || cells[0] == "| tests" {
			continue
		}
		suites++
		for _, row := range strings.Split(cells[1], " · ") {
			if !strings.Contains(table, "\n| "+row+" | ") {
				t.Errorf("%s: there is no row %q", strings.TrimPrefix(cells[0], "| "), row)
			}
		}
	}
	for _, n := range regexp.MustCompile(`\((\d+)\)`).FindAllStringSubmatch(pyxis, -1) {
		count, _ := strconv.Atoi(n[1]) // digits
		tests += count
	}
	if suites != 53 || tests != 187 {
		t.Errorf("%d suites, %d tests of pyxis; want 53, 187", suites, tests)
	}
}

// testExists finds "FILE: TITLE" in integration/, or "PACKAGE FUNCTION".
func testExists(name string) bool {
	pattern, want := "", ""
	if file, title, ok := strings.Cut(name, ": "); ok {
		// Those of other kinds of clusters are named with their directory.
		pattern, want = "../integration/*/"+path.Base(file)+".bats", "@test \""+title+"\" {"
	} else if dir, function, ok := strings.Cut(name, " "); ok {
		pattern, want = "../"+dir+"/*_test.go", "func "+function+"("
	}
	files, _ := filepath.Glob(pattern) // a pattern of ours
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), want)
	})
}
