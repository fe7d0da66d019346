// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// addFor adds image number i of a user, of 1 MiB, that was last used so many hours ago.
func addFor(t *testing.T, s *Store, user string, i, hours int) {
	t.Helper()
	draft, err := s.Draft(numbered(i))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Duration(hours) * time.Hour)
	err = errors.Join(
		os.WriteFile(draft.Path(), make([]byte, 1<<20), 0o600),
		draft.Publish(Meta{User: user}),
	)
	if err == nil {
		err = os.Chtimes(s.path(strings.TrimPrefix(numbered(i), "sha256:")+".json"), at, at)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestMakeRoom(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name  string
		share Share
		size  int64
		gone  []int
		err   string
	}{
		{"there is room", Share{User: "a", Size: 5 * mib}, mib, nil, ""},
		{"the one that was not used for longest", Share{User: "a", Size: 4 * mib}, mib, []int{3}, ""},
		{"as many as are needed", Share{User: "a", Size: 4 * mib}, 3 * mib, []int{3, 1, 2}, ""},
		{"all", Share{User: "a", Size: 4 * mib}, 4 * mib, []int{3, 1, 2, 4}, ""},
		{"too large: nothing goes", Share{User: "a", Size: 4 * mib}, 5 * mib, nil, "images in use take 0 MiB of 4 MiB, and this one takes 5 MiB"},
		{"another user's images stay", Share{User: "b", Size: mib}, mib, []int{9}, ""},
		{"of a user who has none", Share{User: "c", Size: mib}, mib, nil, ""},
		{"no limit", Share{User: "a"}, 100 * mib, nil, ""},
		{"root has none", Share{User: "root", Size: mib}, 100 * mib, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			for i, hours := range map[int]int{1: 70, 2: 50, 3: 90, 4: 2} {
				addFor(t, s, "a", i, hours)
			}
			addFor(t, s, "b", 9, 100)
			addFor(t, s, "root", 10, 100)
			err := s.MakeRoom(t.Context(), tt.share, tt.size)
			if tt.err == "" && err != nil || tt.err != "" && (!errors.Is(err, ErrShare) || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("MakeRoom = %v; want %q", err, tt.err)
			}
			for _, i := range []int{1, 2, 3, 4, 9, 10} {
				if gone := !s.Has(numbered(i)); gone != slices.Contains(tt.gone, i) {
					t.Errorf("image %d: gone is %v; want those of %v to go", i, gone, tt.gone)
				}
			}
		})
	}
}

// TestCheckShare attaches an image to a loop device, as a step does that uses it.
func TestCheckShare(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s := newStore(t)
	addFor(t, s, "a", 1, 70)
	addFor(t, s, "a", 2, 50)
	full := Share{User: "a", Size: 1 << 20}
	if err := s.CheckShare(full); err != nil {
		t.Errorf("CheckShare where nothing is in use = %v", err)
	}
	out, err := exec.Command("losetup", "--find", "--show", "--read-only", s.path(strings.TrimPrefix(numbered(1), "sha256:")+".squashfs")).Output()
	if err != nil {
		t.Skipf("losetup: %v", err)
	}
	t.Cleanup(func() {
		if err := exec.Command("losetup", "--detach", strings.TrimSpace(string(out))).Run(); err != nil {
			t.Error(err)
		}
	})
	if err := s.CheckShare(full); !errors.Is(err, ErrShare) || err.Error() != ErrShare.Error()+": images in use take 1 MiB of 1 MiB" {
		t.Errorf("CheckShare where one is in use = %v", err)
	}
	if err := s.MakeRoom(t.Context(), Share{User: "a", Size: 2 << 20}, 1<<20); err != nil || !s.Has(numbered(1)) || s.Has(numbered(2)) {
		t.Errorf("MakeRoom = %v; want the image to go that is not in use", err)
	}
	if err := s.CheckShare(Share{User: "b", Size: 1 << 20}); err != nil {
		t.Errorf("CheckShare of another user = %v", err)
	}
}
