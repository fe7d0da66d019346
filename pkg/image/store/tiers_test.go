// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

func TestTiers(t *testing.T) {
	missing := New(filepath.Join(t.TempDir(), "none"), self)
	first, second := newStore(t), newStore(t)
	tiers := Tiers{missing, first, second}
	if _, err := tiers.Open(digest); !errors.Is(err, ErrNotFound) || tiers.Has(digest) {
		t.Errorf("Open of an image that no store has = %v; want %v", err, ErrNotFound)
	}
	add(t, second, digest, "second")
	img, err := tiers.Open(digest)
	if err != nil || !tiers.Has(digest) {
		t.Fatalf("Open of an image of the second store = %v, Has %v", err, tiers.Has(digest))
	}
	img.Close()
	add(t, first, digest, "first!")
	if img, err = tiers.Open(digest); err != nil || !strings.HasPrefix(img.File.Name(), first.Dir()) {
		t.Errorf("Open of an image of both stores = %v, %v; want the first's", img.File, err)
	}
	img.Close()
	if s, err := tiers.ForNew(); err != nil || s != first {
		t.Errorf("ForNew = %v, %v; want the first that exists", s, err)
	}
	if there, err := tiers.Existing(); err != nil || len(there) != 2 {
		t.Errorf("Existing = %v, %v; want two", there, err)
	}
	if err := os.Chmod(first.Dir(), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := tiers.ForNew(); err == nil || !strings.Contains(err.Error(), "can be written by others") {
		t.Errorf("ForNew where the first is open to all = %v; want an error", err)
	}
	if _, err := (Tiers{missing}).ForNew(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ForNew without a store = %v; want %v", err, fs.ErrNotExist)
	}
}

// TestFormat: a store, or an image, of a later Brolga is refused with words.
func TestFormat(t *testing.T) {
	s := newStore(t)
	path := filepath.Join(s.Dir(), "format")
	if text, err := os.ReadFile(path); err != nil || string(text) != "1\n" {
		t.Errorf("format is %q, %v", text, err)
	}
	if err := os.WriteFile(path, []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err == nil || !strings.HasSuffix(err.Error(), "has store format 2, and this Brolga knows up to 1") || fault.Hint(err) == "" {
		t.Errorf("Check of a later store = %v", err)
	}
	add(t, s, digest, "content")
	json := s.path(hex + ".json")
	text, err := os.ReadFile(json)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(json, []byte(strings.Replace(string(text), `"format":1`, `"format":2`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(digest); err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "has store format 2") {
		t.Errorf("Open of a later image = %v", err)
	}
}

// TestTouch: the time of the last use is kept, but not written for each start.
func TestTouch(t *testing.T) {
	s := newStore(t)
	add(t, s, digest, "content")
	for _, tt := range []struct {
		age     time.Duration
		touched bool
	}{
		{time.Minute, false},
		{2 * touchEvery, true},
		{-2 * touchEvery, true}, // of a node whose clock is wrong
	} {
		at := time.Now().Add(-tt.age)
		if err := os.Chtimes(s.path(hex+".json"), at, at); err != nil {
			t.Fatal(err)
		}
		used := usedAt(t, s)
		Tiers{New("/no/such/store", self), s}.Touch(Meta{Digest: digest, Used: used})
		if got := !usedAt(t, s).Equal(used); got != tt.touched {
			t.Errorf("Touch after %v wrote: %v; want %v", tt.age, got, tt.touched)
		}
	}
}

func usedAt(t *testing.T, s *Store) time.Time {
	t.Helper()
	img, err := s.Open(digest)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	return img.Meta.Used
}

// TestHalf: half an image is none, so that it is made again.
func TestHalf(t *testing.T) {
	for _, ext := range []string{".json", ".squashfs"} {
		s := newStore(t)
		add(t, s, digest, "content")
		if err := os.Remove(s.path(hex + ext)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(digest); !errors.Is(err, ErrNotFound) || s.Has(digest) {
			t.Errorf("without %s: Open = %v, Has %v; want %v", ext, err, s.Has(digest), ErrNotFound)
		}
		add(t, s, digest, "content")
		if !s.Has(digest) {
			t.Errorf("without %s the image was not published again", ext)
		}
	}
}
