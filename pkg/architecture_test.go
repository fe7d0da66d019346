// SPDX-License-Identifier: Apache-2.0

package pkg_test

//go:generate go test -run TestArchitecture -update .

import (
	"flag"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated part of docs/architecture.md")

// architecture is the document, and the lines that its generated part is between.
const (
	architecture = "../docs/architecture.md"
	floorsBegin  = "<!-- floors: begin -->\n"
	floorsEnd    = "<!-- floors: end -->\n"
)

// TestArchitecture checks that docs/architecture.md has the packages as the table of layers
// has them.
func TestArchitecture(t *testing.T) {
	text, err := os.ReadFile(architecture)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), floorsBegin)
	_, after, ok2 := strings.Cut(rest, floorsEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the lines of its generated part", architecture)
	}
	want := before + floorsBegin + floors(t) + floorsEnd + after
	if *update {
		err = os.WriteFile(architecture, []byte(want), 0o644)
	} else if string(text) != want {
		t.Errorf("%s is not up to date: make generate", architecture)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// floors returns a table of all packages, the highest first.
func floors(t *testing.T) string {
	t.Helper()
	synopsis := map[string]string{}
	for _, p := range list(t, "./pkg/...") {
		first, _, _ := strings.Cut(p.Doc, "\n\n")
		first, _, _ = strings.Cut(strings.ReplaceAll(first, "\n", " "), ": ")
		first, _, _ = strings.Cut(first, ". ")
		synopsis[strings.TrimPrefix(p.ImportPath, path.Join(module, "pkg")+"/")] = strings.TrimRight(strings.TrimPrefix(first, "Package "), ".:")
	}
	var out strings.Builder
	out.WriteString("| floor | package | what it does |\n|---:|---|---|\n")
	for i, layer := range slices.Backward(layers) {
		for _, p := range slices.Sorted(slices.Values(layer)) {
			_, what, _ := strings.Cut(synopsis[p], " ")
			fmt.Fprintf(&out, "| %d | `pkg/%s` | %s |\n", i, p, strings.ReplaceAll(what, "|", "\\|"))
		}
	}
	return out.String()
}
