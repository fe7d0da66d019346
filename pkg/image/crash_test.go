// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// owned returns the site's store.
func (s *site) owned(t *testing.T) *store.Store {
	t.Helper()
	owner, err := store.LookupOwner(storeOwner)
	if err != nil {
		t.Fatal(err)
	}
	return store.New(s.conf.Store[0], owner)
}

// whole checks that the store has whole images only, and how many.
func whole(t *testing.T, st *store.Store, what string) int {
	t.Helper()
	all, err := st.List()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, m := range all {
		if err := st.Verify(t.Context(), m); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	return len(all)
}

// TestKilled: whenever a pull or a conversion is killed, there is a whole image
// or none, the next start works, and then nothing is left.
func TestKilled(t *testing.T) {
	s := newSite(t)
	r := s.push(t, "1")
	st := s.owned(t)
	killer := filepath.Join(s.dir, "killer")
	const moments = 50
	began := time.Now()
	if img, err := Get(t.Context(), s.source(4711), r); err != nil {
		t.Fatal(err)
	} else {
		img.Close()
	}
	whole(t, st, "not killed")
	step := time.Since(began) / moments // of a machine that may be fast or busy
	killed := 0
	for i := range moments {
		moment := time.Duration(i) * step
		what := fmt.Sprintf("killed after %v", moment)
		if err := errors.Join(os.RemoveAll(filepath.Join(st.Dir(), "sha256")), os.RemoveAll(filepath.Join(s.dir, "cache/4711"))); err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("#!/bin/bash\n%s \"$@\" &\nsleep %f\nkill -KILL $! 2>/dev/null\nwait $!\n", s.conf.Client, moment.Seconds())
		if err := os.WriteFile(killer, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		src := s.source(4711)
		src.Config.Client = killer
		if img, err := Get(t.Context(), src, r); err == nil {
			img.Close()
		} else {
			killed++
		}
		whole(t, st, what)
		img, err := Get(t.Context(), s.source(4711), r)
		if err != nil {
			t.Errorf("%s, and then: %v", what, err)
			continue
		}
		img.Close()
		if n := whole(t, st, what); n != 1 {
			t.Errorf("%s, and then: %d images", what, n)
		}
	}
	if killed < moments/10 {
		t.Errorf("only %d of %d were killed before they were done", killed, moments)
	}
	if err := st.Collect(t.Context(), expire.Limits{MaxSize: -1}, func(expire.Removed) {}); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"sha256/.*", "lease/*", "lease/.*", ".tmp*"} {
		if left, _ := filepath.Glob(filepath.Join(st.Dir(), pattern)); len(left) > 0 {
			t.Errorf("left %q", left)
		}
	}
}

// TestNoSpace: wherever a full store stops a conversion, nothing half is left, the
// error says so, and it works when there is space.
func TestNoSpace(t *testing.T) {
	s := newSite(t)
	r := s.push(t, "1")
	st := s.owned(t)
	owner, err := store.LookupOwner(storeOwner)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, limit := range []string{
		"nr_inodes=1", "nr_inodes=2", "nr_inodes=3", "nr_inodes=4", "nr_inodes=5", "nr_inodes=6", "nr_inodes=7",
		"size=4k", "size=8k", "size=16k", "size=24k", "size=32k", "size=36k", "size=40k", "size=44k",
	} {
		options := fmt.Sprintf("mode=0711,uid=%d,gid=%d", owner.UID, owner.GID)
		if err := unix.Mount("brolga-test", st.Dir(), "tmpfs", 0, options+","+limit); err != nil {
			t.Fatal(err)
		}
		img, err := Get(t.Context(), s.source(4711), r)
		if err == nil {
			img.Close()
		} else if failed++; !strings.Contains(strings.ToLower(err.Error()), "no space left") {
			t.Errorf("%s: Get = %v; want an error that says that there is no space", limit, err)
		}
		if _, err := os.Stat(filepath.Join(st.Dir(), "sha256")); err == nil {
			whole(t, st, limit)
		}
		if left, _ := filepath.Glob(filepath.Join(st.Dir(), "sha256", ".tmp*")); len(left) > 0 {
			t.Errorf("%s: left %q", limit, left)
		}
		if err := unix.Mount("brolga-test", st.Dir(), "tmpfs", unix.MS_REMOUNT, options+",size=1g,nr_inodes=1000"); err != nil {
			t.Fatal(err)
		}
		if img, err = Get(t.Context(), s.source(4711), r); err != nil {
			t.Errorf("%s, and then space: %v", limit, err)
		} else {
			img.Close()
		}
		if err := retryUnmount(st.Dir()); err != nil {
			t.Fatal(err)
		}
	}
	if failed < 7 {
		t.Errorf("only %d conversions lacked space", failed)
	}
}

// retryUnmount waits for killed children that are not reaped yet.
func retryUnmount(dir string) (err error) {
	for range 100 {
		if err = unix.Unmount(dir, 0); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}
