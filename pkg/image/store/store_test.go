// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brolga-hpc/brolga/pkg/identity"
)

const (
	hex    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	digest = "sha256:" + hex
)

// self owns the stores of tests.
var self = identity.User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}

func newStore(t *testing.T) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s := New(dir, self)
	if err := errors.Join(s.Check(), s.Init(), s.Init()); err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t *testing.T, s *Store, digest, content string) {
	t.Helper()
	d, err := s.Draft(digest)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	if err := os.WriteFile(d.Path(), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish(Meta{Name: "a", Created: time.Unix(1, 0).UTC(), Config: Config{Env: []string{"A=b"}}}); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	s := newStore(t)
	if _, err := s.Open(digest); !errors.Is(err, ErrNotFound) || s.Has(digest) {
		t.Errorf("Open of an empty store = %v, Has %v; want %v", err, s.Has(digest), ErrNotFound)
	}
	add(t, s, digest, "content")
	img, err := s.Open(digest)
	if err != nil || !s.Has(digest) {
		t.Fatalf("Open = %v, Has %v", err, s.Has(digest))
	}
	defer img.Close()
	if m := img.Meta; m.Digest != digest || m.Size != 7 || m.Name != "a" || len(m.Config.Env) != 1 {
		t.Errorf("Meta = %+v", m)
	}
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Digest != digest {
		t.Errorf("List = %+v, %v; want one image", all, err)
	}
	if err := s.Remove(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(img.File); err != nil || string(b) != "content" {
		t.Errorf("an image in use reads %q, %v after Remove", b, err)
	}
	if _, err := s.Open(digest); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open after Remove = %v; want %v", err, ErrNotFound)
	}
	if err := s.Remove(t.Context(), digest); !errors.Is(err, ErrNotFound) {
		t.Errorf("second Remove = %v; want %v", err, ErrNotFound)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), "sha256", "*")); len(left) > 0 {
		t.Errorf("Remove left %q", left)
	}
}

// TestOpenRefuses lists what is not an image of the store, wherever it came
// from.
func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(squashfs, json string) error
		err   string
	}{
		{"writable by others", func(f, _ string) error { return os.Chmod(f, 0o622) }, "can be written by others"},
		{"data writable by others", func(_, f string) error { return os.Chmod(f, 0o622) }, "can be written by others"},
		{"owned by another", func(f, _ string) error { return errors.Join(os.Chmod(f, 0o644), os.Chown(f, 4711, 0)) }, "belongs to user 4711"},
		{"a link", func(f, json string) error { return errors.Join(os.Remove(f), os.Symlink(json, f)) }, "too many levels"},
		{"a directory", func(f, _ string) error { return errors.Join(os.Remove(f), os.Mkdir(f, 0o700)) }, "not a regular file"},
		{"no data", func(_, f string) error { return os.Remove(f) }, ErrNotFound.Error()},
		{"data of another", func(_, f string) error { return os.WriteFile(f, []byte(`{"digest":"sha256:1"}`), 0o600) }, "it is about"},
		{"data that are none", func(_, f string) error { return os.WriteFile(f, []byte(`x`), 0o600) }, "invalid character"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			add(t, s, digest, "content")
			err := tt.spoil(s.path(hex+".squashfs"), s.path(hex+".json"))
			if errors.Is(err, fs.ErrPermission) {
				t.Skip("needs root")
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Open(digest); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Open = %v; want an error with %q", err, tt.err)
			}
		})
	}
	s := newStore(t)
	for _, bad := range []string{"", "sha256:", "sha256:../../x", hex} {
		if _, err := s.Open(bad); err == nil || s.Has(bad) {
			t.Errorf("Open(%q) = %v, Has %v; want an error", bad, err, s.Has(bad))
		}
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	if err := New(filepath.Join(dir, "none"), self).Check(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Check of a missing directory = %v; want %v", err, fs.ErrNotExist)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := New(dir, self).Check(); err == nil {
		t.Error("Check accepts a directory that all can write to")
	}
}

// TestLeaseCleansUp: what a killed producer left is gone when the next one has
// the lease, and other images are left alone.
func TestLeaseCleansUp(t *testing.T) {
	s := newStore(t)
	add(t, s, digest, "content")
	dead, err := s.Draft(digest)
	if err != nil {
		t.Fatal(err)
	}
	busy := strings.Repeat("f", 64)
	producer, err := s.Lease(t.Context(), "sha256:"+busy, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	other := s.path(".tmp-" + busy + "-1.squashfs")
	for _, path := range []string{dead.Path(), other} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	held, err := s.Lease(t.Context(), digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := os.Stat(dead.Path()); err == nil {
		t.Error("the draft of a dead producer is still there")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("the draft of another image is gone")
	}
	if !s.Has(digest) {
		t.Error("the image is gone")
	}
}

// TestOpenAs: a user who is not the owner gets what the store's modes let them read.
func TestOpenAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: acts as another user")
	}
	s := newStore(t)
	for dir := s.Dir(); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	add(t, s, digest, "content")
	user := identity.User{UID: 4711, GID: 4711}
	if img, err := s.OpenAs(user, digest); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("OpenAs of a private store = %v, %v; want it refused", img, err)
	}
	for _, ext := range []string{".squashfs", ".json"} {
		if err := os.Chmod(s.path(hex+ext), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	img, err := s.OpenAs(user, digest)
	if err != nil || img.Meta.Digest != digest {
		t.Fatalf("OpenAs of a readable store = %+v, %v", img, err)
	}
	img.Close()
}
