// SPDX-License-Identifier: Apache-2.0

package pkg_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// decided says who may look at what a request is decided from. Packages later on the way get
// the request, or a part of the settings as a value of its own type. Each exception has its
// reason.
var decided = []struct {
	what    string
	of      string // package
	names   []string
	prefix  string // of more names
	allowed map[string]string
}{
	{
		what: "the whole configuration of the site", of: "config", names: []string{"Config", "Default", "Load"},
		allowed: map[string]string{
			"pkg/config":        "it is there",
			"pkg/step":          "reads it on a node and passes it to the engine",
			"pkg/request":       "decides by it",
			"pkg/image":         "half of it is about images; it is passed on to the programs that convert",
			"pkg/image/resolve": "decides by it",
			"pkg/image/convert": "is a program of its own, which reads it",
			"pkg/image/fetch":   "is a program of its own, which reads it",
			"pkg/userfile":      "takes its policy for squashfs files from it",
		},
	},
	{
		what: "the environment of its process", of: "os", names: []string{"Getenv", "LookupEnv", "Environ"},
		allowed: map[string]string{
			"pkg/image/pull":    "TERM, for the progress",
			"pkg/image/convert": "passes its own on to the program in the sandbox",
			"pkg/ssh/client":    "is a program of the user's own",
		},
	},
	{
		what: "the text of options", of: "option", names: []string{"Collect"}, prefix: "Parse",
		allowed: map[string]string{
			"pkg/option":  "it is there",
			"pkg/edf":     "a file has the same settings",
			"pkg/request": "decides by them",
			"pkg/step":    "collects them",
			"pkg/engine":  "takes the values of variables out of what the audit log gets",
		},
	},
}

// TestSettings checks that nobody else looks at settings, the environment or options, and that
// each exception is one.
func TestSettings(t *testing.T) {
	for _, rule := range decided {
		unused := map[string]bool{}
		for p := range rule.allowed {
			unused[p] = true
		}
		eachFile(t, func(dir string, file *ast.File) {
			ast.Inspect(file, func(n ast.Node) bool {
				name, ok := selected(n, rule.of)
				if !ok || !slices.Contains(rule.names, name) && (rule.prefix == "" || !strings.HasPrefix(name, rule.prefix)) {
					return true
				}
				delete(unused, dir)
				if _, ok := rule.allowed[dir]; !ok {
					t.Errorf("%s uses %s.%s: it may not look at %s", dir, rule.of, name, rule.what)
				}
				return true
			})
		})
		for p := range unused {
			if p != "pkg/"+rule.of {
				t.Errorf("%s is allowed to look at %s, and does not", p, rule.what)
			}
		}
	}
}

// selected returns the name that an expression takes from a package.
func selected(n ast.Node, from string) (name string, ok bool) {
	s, ok := n.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	x, ok := s.X.(*ast.Ident)
	return s.Sel.Name, ok && x.Name == from
}

// eachFile calls f for each file of pkg/ and hooks/ that is no test, with its directory.
func eachFile(t *testing.T, f func(dir string, file *ast.File)) {
	t.Helper()
	for _, root := range []string{"pkg", "hooks"} {
		err := fs.WalkDir(os.DirFS(".."), root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", path), nil, parser.SkipObjectResolution)
			if err == nil {
				f(filepath.Dir(path), file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
