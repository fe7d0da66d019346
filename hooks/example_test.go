// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exampleMain prints what the hooks mount, the example of docs/hooks.md among them.
const exampleMain = `package main

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/hooks"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/request"
)

func main() {
	for _, value := range []string{"true", "false"} {
		r := request.Request{Hooks: request.Hooks{Annotations: map[string]string{"com.example.scratch": value}}}
		var s specs.Spec
		err := hook.Edit(hook.Select(hooks.All(), r), &s, r)
		fmt.Println(value, err, len(s.Mounts))
		for _, m := range s.Mounts {
			fmt.Println(m.Source, m.Destination, m.Options[0])
		}
	}
}
`

// TestExample checks that what docs/hooks.md says is enough to add a hook: the
// directory and the line are added to what the compiler sees, and run.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../docs/hooks.md")
	if err != nil {
		t.Fatal(err)
	}
	example := between(t, string(text), "<!-- example: begin -->\n```go\n", "```\n<!-- example: end -->")
	if n := strings.Count(example, "\n"); n > 30 {
		t.Errorf("the example has %d lines", n)
	}
	line := between(t, string(text), "and the line, in `hooks/hooks.go`, is `", "`")
	list, err := os.ReadFile("hooks.go")
	if err != nil {
		t.Fatal(err)
	}
	const first = "	return []hook.Hook{\n"
	edited := strings.Replace(string(list), first, first+line+"\n", 1)
	edited = strings.Replace(edited, "import (\n", "import (\n\"github.com/brolga-hpc/brolga/hooks/scratch\"\n", 1)

	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, content := range map[string]string{"hooks.go": edited, "scratch/scratch.go": example, "scratch/main/main.go": exampleMain} {
		path := filepath.Join(t.TempDir(), "file.go")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(here, name)] = path
	}
	table, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(path, table, 0o600); err != nil {
		t.Fatal(err)
	}
	const want = "true <nil> 1\n/scratch /scratch x-brolga.user\nfalse <nil> 0\n"
	if out, err := exec.Command("go", "run", "-overlay", path, "./scratch/main").CombinedOutput(); err != nil || string(out) != want {
		t.Errorf("the example: %v\n%s", err, out)
	}
}

func between(t *testing.T, text, begin, end string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, begin)
	found, _, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("docs/hooks.md has no part between %q and %q", begin, end)
	}
	return found
}
