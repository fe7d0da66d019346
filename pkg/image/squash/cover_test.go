// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"archive/tar"
	"io"
	"testing"
)

func TestCoverHides(t *testing.T) {
	c := cover{}
	for _, m := range []member{
		regular("file", "x"), dir("dir"), regular("new/file", "x"), symlink("link", "dir"), regular("gone/.wh.x", ""),
		regular("dir/.wh..wh..opq", ""), regular("both/.wh.x", ""), dir("both/x"),
	} {
		e, err := newEntry(&m.hdr, 0)
		if err != nil {
			t.Fatal(err)
		}
		c.add(e)
	}
	for name, want := range map[string]bool{
		"file": true, "file/x": true, "dir": true, "dir/x": true, "dir/x/y": true, "new": true, "new/file": true,
		"link": true, "link/x": true, "gone/x": true, "gone/x/y": true, "both/x": true, "both/x/y": true,

		"new/x": false, "gone": false, "gone/y": false, "other": false, "both/y": false, "filex": false,
	} {
		if got := c.hides(name); got != want {
			t.Errorf("hides(%q) = %v; want %v", name, got, want)
		}
	}
	c.add(entry{file: file{kind: kindWhiteout}, name: opaque})
	if !c.hides("other") {
		t.Error("an opaque root hides not all")
	}
}

// TestReadOnceIsEnough says for which images one reading of the layers is enough.
func TestReadOnceIsEnough(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layers [][]member
		want   error
	}{
		{"whiteouts", [][]member{{regular("a/x", "1"), regular("b/y", "1")}, {regular("a/.wh.x", ""), regular("b/.wh..wh..opq", "")}}, nil},
		{"replaced", [][]member{{regular("a", "1"), regular("d/x", "1"), regular("f", "1")}, {regular("a", "2"), symlink("d", "a"), dir("f")}}, nil},
		{"hard links", [][]member{{regular("a", "1"), hardlink("b", "a")}, {regular(".wh.b", "")}}, nil},
		{"hard link into a lower layer", [][]member{{regular("a", "1")}, {hardlink("b", "a")}}, nil},
		{"empty files again", [][]member{{regular("a", ""), regular("a", "")}}, nil},

		{"same name again", [][]member{{regular("a", "1"), regular("a", "2")}}, errOdd},
		{"file and directory", [][]member{{regular("a", "1"), regular("a/x", "2")}}, errOdd},
		{"file and link", [][]member{{regular("a", "1"), symlink("a", "b")}}, errOdd},
		{"hard link outlives a whiteout", [][]member{{regular("a", "1"), hardlink("b", "a")}, {regular(".wh.a", "")}}, errOdd},
		{"through a link", [][]member{{dir("d"), symlink("l", "d"), regular("l/x", "1")}}, errOdd},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tars [][]byte
			for _, members := range tt.layers {
				tars = append(tars, tarOf(t, members))
			}
			in := input(t, tars)
			conf, err := readConfig(in)
			if err != nil {
				t.Fatal(err)
			}
			w := newWriter("", "", 0)
			w.tar = tar.NewWriter(io.Discard)
			if _, err := w.readOnce(t.Context(), in.layers(conf), limits); err != tt.want {
				t.Errorf("readOnce = %v; want %v", err, tt.want)
			}
		})
	}
}
