// SPDX-License-Identifier: Apache-2.0

package export

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// TestTarget checks that a target appears as a whole, that what is there stays without
// --force, and that a directory is replaced only if it is an image layout.
func TestTarget(t *testing.T) {
	img, dir := cached(t), t.TempDir()
	at := func(kind, name string) ref.Ref {
		r, err := ref.Parse(kind + filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if err := os.Mkdir(filepath.Join(dir, "theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		to   Target
		err  string
	}{
		{"a layout", Target{Place: at("oci:", "layout")}, ""},
		{"again", Target{Place: at("oci:", "layout")}, "layout exists"},
		{"again, by force", Target{Place: at("oci:", "layout"), Force: true}, ""},
		{"an archive", Target{Place: at("oci-archive:", "a.tar")}, ""},
		{"an archive again", Target{Place: at("oci-archive:", "a.tar")}, "a.tar exists"},
		{"a directory of something else", Target{Place: at("oci:", "theirs"), Force: true}, "is not replaced"},
		{"a directory that is not there", Target{Place: at("oci:", "none/layout")}, "no such file or directory"},
	} {
		err := tt.to.Write(t.Context(), img)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".brolga-export-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "layout", "oci-layout")); err != nil {
		t.Error(err)
	}
}
