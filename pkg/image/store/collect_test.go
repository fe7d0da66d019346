// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/expire"
)

// numbered returns the digest number i.
func numbered(i int) string { return fmt.Sprintf("sha256:%064x", i) }

// addUsed adds image number i of 1000 bytes, data included, that was last used
// so many hours ago.
func addUsed(t *testing.T, s *Store, i, hours int) {
	t.Helper()
	add(t, s, numbered(i), "")
	base := s.path(strings.TrimPrefix(numbered(i), "sha256:"))
	json, err := os.Stat(base + ".json")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Duration(hours) * time.Hour)
	if err := os.Truncate(base+".squashfs", 1000-json.Size()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(base+".json", at, at); err != nil {
		t.Fatal(err)
	}
}

func TestCollect(t *testing.T) {
	for _, tt := range []struct {
		name string
		l    expire.Limits
		gone []int
	}{
		{"no limit", expire.Limits{MaxSize: -1}, nil},
		{"size", expire.Limits{MaxSize: 2500}, []int{3, 1}},
		{"just the size", expire.Limits{MaxSize: 4000}, nil},
		{"nothing fits", expire.Limits{MaxSize: 0}, []int{3, 1, 4, 2}},
		{"age", expire.Limits{MaxSize: -1, Unused: 60 * time.Hour}, []int{3, 1}},
		{"size of what is old", expire.Limits{MaxSize: 0, Unused: 90 * time.Hour}, []int{3}},
		{"age of what is too much", expire.Limits{MaxSize: 3000, Unused: time.Hour}, []int{3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, dry := range []bool{true, false} {
				s := newStore(t)
				for i, hours := range []int{1: 75, 2: 25, 3: 100, 4: 50} {
					if hours > 0 {
						addUsed(t, s, i, hours)
					}
				}
				tt.l.DryRun = dry
				var told []string
				err := s.Collect(t.Context(), tt.l, func(r expire.Removed) { told = append(told, fmt.Sprint(r)) })
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				for _, i := range tt.gone {
					want = append(want, fmt.Sprint(expire.Removed{What: "image", Name: "a@" + numbered(i), Size: 1000}))
				}
				if !slices.Equal(told, want) {
					t.Errorf("dry %v: told %q; want %q", dry, told, want)
				}
				for i := 1; i <= 4; i++ {
					if gone := slices.Contains(tt.gone, i) && !dry; s.Has(numbered(i)) == gone {
						t.Errorf("dry %v: image %d is there: %v", dry, i, !gone)
					}
				}
			}
		})
	}
}

// TestCollectKeeps: an image that is in use on this node, or that another process
// is about to produce or remove.
func TestCollectKeeps(t *testing.T) {
	s := newStore(t)
	used := int(mrand.Int32()) // loop devices are the whole machine's
	addUsed(t, s, 1, 100)
	addUsed(t, s, used, 100)
	held, err := s.Lease(t.Context(), numbered(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	draft := s.path(".tmp-" + strings.TrimPrefix(numbered(1), "sha256:") + "-x.squashfs")
	if err := os.WriteFile(draft, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inUse := false
	if os.Geteuid() == 0 {
		out, err := exec.Command("losetup", "--find", "--show", "--read-only", s.path(strings.TrimPrefix(numbered(used), "sha256:")+".squashfs")).Output()
		if inUse = err == nil; inUse {
			t.Cleanup(func() { _ = exec.Command("losetup", "--detach", strings.TrimSpace(string(out))).Run() })
		}
	}
	if err := s.Collect(t.Context(), expire.Limits{MaxSize: 0}, func(expire.Removed) {}); err != nil {
		t.Fatal(err)
	}
	if !s.Has(numbered(1)) {
		t.Error("an image whose lease is held is gone")
	}
	if _, err := os.Stat(draft); err != nil {
		t.Error("a draft of a producer that lives is gone")
	}
	if s.Has(numbered(used)) != inUse {
		t.Errorf("image on a loop device: %v; is there: %v", inUse, !inUse)
	}
}

// TestCollectLeft: what killed processes leave goes, whatever the limits.
func TestCollectLeft(t *testing.T) {
	s := newStore(t)
	add(t, s, digest, "whole")
	file := func(name string, age time.Duration) string {
		path := filepath.Join(s.Dir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f, e, d := strings.Repeat("f", 64), strings.Repeat("e", 64), strings.Repeat("d", 64)
	left := []string{
		file("sha256/.tmp-"+f+"-x.squashfs", 0),
		file("sha256/"+f+".json", 0),
		file("sha256/"+e+".squashfs", 0),
		file(".tmp-format-x", 48*time.Hour),
		file("lease/"+d+"/other+b+1+1+r", 48*time.Hour),
		file("lease/.new-other+b+1+2+r/other+b+1+2+r", 48*time.Hour),
	}
	kept := []string{
		file(".tmp-format-y", 0),
		file("lease/"+strings.Repeat("c", 64)+"/other+b+1+3+r", 0),
		file("lease/.new-other+b+1+4+r/other+b+1+4+r", 0),
	}
	if err := s.Collect(t.Context(), expire.Limits{MaxSize: -1, DryRun: true}, func(expire.Removed) {}); err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Concat(left, kept) {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("a dry run removed %s", path)
		}
	}
	told := 0
	if err := s.Collect(t.Context(), expire.Limits{MaxSize: -1}, func(expire.Removed) { told++ }); err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	for _, path := range kept {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone", path)
		}
	}
	if told != len(left) || !s.Has(digest) {
		t.Errorf("told of %d; want %d; the whole image is there: %v", told, len(left), s.Has(digest))
	}
}

// TestCollectSometimes does not look at the whole store for each new image.
func TestCollectSometimes(t *testing.T) {
	s := newStore(t)
	for i := 1; i <= 2; i++ {
		addUsed(t, s, i, 100)
		if err := s.CollectSometimes(t.Context(), 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	if s.Has(numbered(1)) || !s.Has(numbered(2)) {
		t.Errorf("images: %v, %v; want the second, which came right after", s.Has(numbered(1)), s.Has(numbered(2)))
	}
}

// TestCollectFull: a store in which not even a lease can be taken can be emptied.
func TestCollectFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("brolga-test", dir, "tmpfs", 0, "mode=0711,nr_inodes=100"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	s := New(dir, self)
	err := s.Init()
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, numbered(1), "a")
	add(t, s, numbered(2), "b")
	for i := 0; err == nil; i++ {
		err = os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600)
	}
	if _, err := s.Lease(t.Context(), numbered(3), nil); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Lease in a full store = %v; want %v", err, unix.ENOSPC)
	}
	if err := s.Collect(t.Context(), expire.Limits{MaxSize: 0}, func(expire.Removed) {}); err != nil {
		t.Fatal(err)
	}
	if s.Has(numbered(1)) || s.Has(numbered(2)) {
		t.Errorf("images are there: %v, %v", s.Has(numbered(1)), s.Has(numbered(2)))
	}
}

// TestCollectLooksAgain: what was used, or became whole, since the list was made
// stays.
func TestCollectLooksAgain(t *testing.T) {
	s := newStore(t)
	addUsed(t, s, 1, 100)
	for _, what := range []string{image, part} {
		seen := stored{hex: strings.TrimPrefix(numbered(1), "sha256:"), used: time.Unix(1, 0)}
		if freed, err := s.collect(t.Context(), seen, what, expire.Limits{}, func(expire.Removed) {}); err != nil || freed != 0 || !s.Has(numbered(1)) {
			t.Errorf("collect of %s = %d, %v; is there: %v", what, freed, err, s.Has(numbered(1)))
		}
	}
}
