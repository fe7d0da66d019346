// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/request"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// input is a case.json.
type input struct {
	Request request.Request
	User    identity.User
	Image   Image
}

// TestGenerate turns every testdata/<case>/case.json into a runtime
// specification and compares it with config.json beside it.
func TestGenerate(t *testing.T) {
	cases, err := filepath.Glob("testdata/*/case.json")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	for _, path := range cases {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var in input
			decoder := json.NewDecoder(bytes.NewReader(text))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&in); err != nil {
				t.Fatal(err)
			}
			before := slices.Clone(in.Image.Env)
			checkGolden(t, filepath.Join(dir, "config.json"), Generate(in.Request, in.User, in.Image, "/run/brolga/bundle/rootfs"))
			if !slices.Equal(before, in.Image.Env) {
				t.Errorf("Generate changed its argument to %q", in.Image.Env)
			}
		})
	}
}

// checkGolden compares v, as indented JSON, with the file at path. With
// -update it writes the file instead; read the diff before committing it.
func checkGolden(t *testing.T, path string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -run %s -update rewrites it)\ngot:\n%s", path, t.Name(), got)
	}
}

func TestBind(t *testing.T) {
	for _, tt := range []struct{ options, want []string }{
		{nil, []string{"rbind", "rslave", "nosuid", "nodev"}},
		{[]string{"ro"}, []string{"ro", "rbind", "rslave", "nosuid", "nodev"}},
		{[]string{"private", "nodev"}, []string{"private", "nodev", "rbind", "nosuid"}},
		{[]string{AsUser, Optional, "rw"}, []string{AsUser, Optional, "rw", "rbind", "rslave", "nosuid", "nodev"}},
	} {
		got := Bind("/a", "/b", tt.options...)
		want := specs.Mount{Source: "/a", Destination: "/b", Type: "bind", Options: tt.want}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("Bind(%q) = %+v; want %+v", tt.options, got, want)
		}
	}
	options := make([]string, 1, 8)
	options[0] = "ro"
	if Bind("/a", "/b", options...); slices.Contains(options[:8], "nosuid") {
		t.Error("Bind writes to its argument")
	}
}

func TestSystemMount(t *testing.T) {
	for destination, want := range map[string]bool{"/proc": true, "/sys": true, "/proc/x": false, "/dev": false, "/": false} {
		if got := SystemMount(specs.Mount{Destination: destination}); got != want {
			t.Errorf("SystemMount(%s) = %v; want %v", destination, got, want)
		}
	}
}
