// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"os"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// A cached layer of the right size and the wrong content is fetched again; the
// others are not.
func TestPullRepairs(t *testing.T) {
	s := newServer(t)
	s.push(t, "1", 2, 1000)
	o := s.options(t, "1")
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	layer := check(t, o).Layers[1]
	l, err := layout.Open(o.Layout)
	if err != nil {
		t.Fatal(err)
	}
	path, err := l.BlobPath(layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s.reset(nil)
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	check(t, o)
	if s.bytes != layer.Size {
		t.Errorf("the second pull got %d bytes; want %d", s.bytes, layer.Size)
	}
}
