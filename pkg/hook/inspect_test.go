// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/nodecache"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// tree is a root file system in a directory, which notes what is shown in it.
type tree struct {
	dir    string
	shown  []string
	closed bool // to this user
}

func (r *tree) OpenFile(path string) (*os.File, string, error) {
	if r.closed {
		return nil, "", fs.ErrPermission
	}
	f, err := os.Open(r.dir + path)
	return f, path, err
}

func (r *tree) Cover(f *os.File, source string) error {
	r.shown = append(r.shown, source+" over "+filepath.Base(f.Name()))
	return nil
}

func (r *tree) Add(source, target string) error {
	r.shown = append(r.shown, source+" at "+target)
	return nil
}

func (r *tree) AddFile(path string, content []byte) error {
	r.shown = append(r.shown, string(content)+" at "+path)
	return nil
}

func newTree(t *testing.T) *tree {
	t.Helper()
	r := &tree{dir: t.TempDir()}
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(r.dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// looker covers /a and adds /new, and counts how often it looked.
type looker struct {
	fake
	source, input string
	looked        *int
}

func (l looker) Inputs(*specs.Spec, request.Request) []string { return []string{l.input} }

func (l looker) Inspect(image *Image, _ *specs.Spec, _ request.Request) (Findings, error) {
	*l.looked++
	f, path, err := image.OpenFile("/a")
	if err != nil {
		return Findings{}, err
	}
	defer f.Close()
	found := Findings{Notes: []string{l.name + " sees " + image.Covered(f) + image.Added("/new")}, Sources: nodecache.Look([]string{l.source})}
	return found, errors.Join(image.Cover(f, path, l.source), image.Add(l.source, "/new"), l.err)
}

func TestInspectShowsWhatTheFirstHookWants(t *testing.T) {
	root, looked := newTree(t), 0
	hooks := []Hook{looker{fake: fake{name: "x"}, source: "/x", looked: &looked}, looker{fake: fake{name: "y"}, source: "/y", looked: &looked}}
	found, err := Inspect(hooks, root, nil, request.Request{}, Cached{})
	if want := []string{"/x over a", "/x at /new"}; err != nil || !slices.Equal(root.shown, want) {
		t.Errorf("Inspect shows %q, %v; want %q", root.shown, err, want)
	}
	if want := []string{"x sees ", "y sees /x/x"}; !slices.Equal(found.Notes, want) {
		t.Errorf("hooks say %q; want %q", found.Notes, want)
	}
}

// writer makes a file for the step.
type writer struct{ fake }

func (writer) Inspect(image *Image, _ *specs.Spec, _ request.Request) (Findings, error) {
	image.AddFile("/etc/made", []byte("content"))
	return Findings{}, nil
}

func TestInspectShowsFilesMadeForTheStep(t *testing.T) {
	root := newTree(t)
	if _, err := Inspect([]Hook{writer{}}, root, nil, request.Request{}, Cached{}); err != nil || !slices.Equal(root.shown, []string{"content at /etc/made"}) {
		t.Errorf("Inspect shows %q, %v", root.shown, err)
	}
}

// TestInspectShowsNothingAfterAFailure checks that an image stays as it was.
func TestInspectShowsNothingAfterAFailure(t *testing.T) {
	root, looked := newTree(t), 0
	hooks := []Hook{looker{source: "/x", looked: &looked}, looker{fake: fake{err: errors.New("no")}, source: "/y", looked: &looked}}
	if _, err := Inspect(hooks, root, nil, request.Request{}, Cached{}); err == nil || root.shown != nil {
		t.Errorf("Inspect = %v, shows %q", err, root.shown)
	}
}

// TestInspectRemembers runs a hook twice, and tells by how often it looked whether
// the second time was like the first.
func TestInspectRemembers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: believes only files of root's")
	}
	for _, tt := range []struct {
		name   string
		change func(k *Cached, h *looker, root *tree) error
		looks  int
	}{
		{"the same", func(*Cached, *looker, *tree) error { return nil }, 1},
		{"another image", func(k *Cached, _ *looker, _ *tree) error { k.Image = "sha256:2"; return nil }, 2},
		{"another version", func(k *Cached, _ *looker, _ *tree) error { k.Version = "2"; return nil }, 2},
		{"other inputs", func(_ *Cached, h *looker, _ *tree) error { h.input = "2"; return nil }, 2},
		{"another hook", func(_ *Cached, h *looker, _ *tree) error { h.name = "other"; return nil }, 2},
		{"a file of the host has changed", func(_ *Cached, h *looker, _ *tree) error {
			return os.WriteFile(h.source, []byte("new"), 0o644)
		}, 2},
		{"a file of the image is not open to this user", func(_ *Cached, _ *looker, root *tree) error { root.closed = true; return nil }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root, looked := newTree(t), 0
			known := Cached{Memory: nodecache.At(t.TempDir()), Image: "sha256:1", Version: "1"}
			h := looker{fake: fake{name: "x"}, source: filepath.Join(t.TempDir(), "library"), looked: &looked}
			var notes [2]string
			for i := range 2 {
				found, _ := Inspect([]Hook{h}, root, nil, request.Request{}, known)
				notes[i] = fmt.Sprint(found.Notes, strings.ReplaceAll(fmt.Sprint(root.shown), h.source, "SOURCE"))
				root.shown = nil
				if i == 0 {
					if err := tt.change(&known, &h, root); err != nil {
						t.Fatal(err)
					}
				}
			}
			if looked != tt.looks {
				t.Errorf("it looked %d times; want %d", looked, tt.looks)
			}
			if tt.looks == 1 && (strings.Replace(notes[0], "]", " hook x: known from an earlier step]", 1) != notes[1] || !strings.Contains(notes[0], "SOURCE over a SOURCE at /new")) {
				t.Errorf("first %s, then %s; want the same", notes[0], notes[1])
			}
		})
	}
}

// TestInspectLooksAgain checks what is never remembered: an image that can change,
// and a hook that failed. What an earlier hook does is part of the question.
func TestInspectLooksAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: believes only files of root's")
	}
	looked, before := 0, 0
	known := Cached{Memory: nodecache.At(t.TempDir()), Image: "sha256:1"}
	h := looker{fake: fake{name: "x"}, source: "/x", looked: &looked}
	inspect := func(k Cached, hooks ...Hook) {
		root := newTree(t)
		_, _ = Inspect(hooks, root, nil, request.Request{}, k)
	}
	inspect(Cached{Memory: known.Memory}, h)
	inspect(Cached{Memory: known.Memory}, h)
	failing := h
	failing.err = errors.New("no")
	inspect(known, failing)
	inspect(known, failing)
	if looked != 4 {
		t.Errorf("it looked %d times; want 4", looked)
	}
	inspect(known, h)
	inspect(known, looker{fake: fake{name: "y"}, source: "/y", looked: &before}, h)
	if looked != 6 {
		t.Errorf("it looked %d times; want 6: another hook has covered the file", looked)
	}
}
