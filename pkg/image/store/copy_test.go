// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// open opens an image that must be there.
func open(t *testing.T, s *Store, digest string) Image {
	t.Helper()
	img, err := s.Open(digest)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestCopy: several steps that start at once copy an image once, and read the
// copy.
func TestCopy(t *testing.T) {
	from := newStore(t)
	add(t, from, digest, "content")
	to := New(filepath.Join(t.TempDir(), "copies"), self)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			img, err := from.Open(digest)
			if err == nil {
				img, err = to.Copy(t.Context(), img, 1<<20)
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer img.Close()
			text, err := io.ReadAll(img.File)
			if err != nil || string(text) != "content" || !strings.HasPrefix(img.File.Name(), to.Dir()) {
				t.Errorf("%s has %q, %v", img.File.Name(), text, err)
			}
			if img.Meta.Name != "a" || len(img.Meta.Config.Env) != 1 {
				t.Errorf("the copy's data are %+v", img.Meta)
			}
		})
	}
	wg.Wait()
	if files, _ := filepath.Glob(filepath.Join(to.Dir(), "sha256", "*")); len(files) != 2 {
		t.Errorf("the copies are %q; want one", files)
	}
	if left, _ := filepath.Glob(filepath.Join(to.Dir(), "sha256", ".*")); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

// TestCopyFallsBack: without room, or where the directory is somebody's, the
// image itself is used.
func TestCopyFallsBack(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit int64
		spoil func(dir string) error
	}{
		{"image larger than the limit", 3, nil},
		{"open to all", 1 << 20, func(dir string) error { return errors.Join(os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777)) }},
		{"a file", 1 << 20, func(dir string) error { return os.WriteFile(dir, nil, 0o600) }},
		{"a link", 1 << 20, func(dir string) error { return os.Symlink("/no/such/directory", dir) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from := newStore(t)
			add(t, from, digest, "content")
			to := New(filepath.Join(t.TempDir(), "copies"), self)
			if tt.spoil != nil {
				if err := tt.spoil(to.Dir()); err != nil {
					t.Fatal(err)
				}
			}
			img, err := to.Copy(t.Context(), open(t, from, digest), tt.limit)
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			if text, err := io.ReadAll(img.File); err != nil || string(text) != "content" {
				t.Errorf("the image has %q, %v", text, err)
			}
		})
	}
}

// TestCopyMakesRoom: copies that were not used for long go for a new one.
func TestCopyMakesRoom(t *testing.T) {
	from, to := newStore(t), newStore(t)
	add(t, from, digest, "content")
	addUsed(t, to, 1, 50)
	addUsed(t, to, 2, 100)
	img, err := to.Copy(t.Context(), open(t, from, digest), 1500)
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
	if !to.Has(digest) || !to.Has(numbered(1)) || to.Has(numbered(2)) {
		t.Errorf("new copy %v, used one %v, unused one %v", to.Has(digest), to.Has(numbered(1)), to.Has(numbered(2)))
	}
}

// TestCopyVerifies: what does not have the published content is neither copied
// nor run.
func TestCopyVerifies(t *testing.T) {
	from, to := newStore(t), newStore(t)
	add(t, from, digest, "content")
	if err := os.WriteFile(from.path(hex+".squashfs"), []byte("c0ntent"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Copy(t.Context(), open(t, from, digest), 1<<20); !errors.Is(err, ErrDamaged) {
		t.Errorf("Copy of a damaged image = %v; want %v", err, ErrDamaged)
	}
	if to.Has(digest) {
		t.Error("a damaged image was copied")
	}
}
