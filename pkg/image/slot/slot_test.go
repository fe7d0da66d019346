// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func take(t *testing.T, ctx context.Context, dir string, count int, o Options) *Slot {
	t.Helper()
	s, err := Take(ctx, dir, "x", count, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTakeLimits checks that no more than two of many have a slot at any time, and
// that all get one.
func TestTakeLimits(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slots")
	var now, most atomic.Int32
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			s, err := Take(t.Context(), dir, "x", 2, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Millisecond)
			now.Add(-1)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most.Load() > 2 || most.Load() < 1 {
		t.Errorf("%d had a slot at once; want 1 or 2", most.Load())
	}
}

// TestTakeFromTheDead checks that a slot is free when the last process that inherited
// it was killed, and not before.
func TestTakeFromTheDead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slots")
	s := take(t, t.Context(), dir, 1, Options{})
	heir := exec.Command("/bin/sleep", "1000")
	heir.ExtraFiles = []*os.File{s.File}
	if err := errors.Join(heir.Start(), s.Close()); err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{})
	go func() {
		<-waits
		_ = heir.Process.Kill()
	}()
	waited := false
	take(t, t.Context(), dir, 1, Options{Waits: func() { waited = true; close(waits) }}).Close()
	if !waited {
		t.Error("the slot was free while a process had it")
	}
	_ = heir.Wait() // it was killed
}

func TestTakeEnds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slots")
	defer take(t, t.Context(), dir, 1, Options{}).Close()
	reason := errors.New("the step was cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, err := Take(ctx, dir, "x", 1, Options{Waits: func() { cancel(reason) }}); !errors.Is(err, reason) {
		t.Errorf("Take = %v; want %v", err, reason)
	}
	done := false
	if _, err := Take(t.Context(), dir, "x", 1, Options{Waits: func() { done = true }, Done: func() bool { return done }}); !errors.Is(err, ErrDone) {
		t.Errorf("Take = %v; want %v", err, ErrDone)
	}
	asked := 0
	s := take(t, t.Context(), dir, 2, Options{Ready: func() bool { asked++; return asked == 3 }})
	defer s.Close()
	if asked != 3 || s.Number != 2 {
		t.Errorf("Take took slot %d after %d questions; want 2 after 3", s.Number, asked)
	}
}

func TestTakeRefuses(t *testing.T) {
	open, link := filepath.Join(t.TempDir(), "open"), filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.Symlink(t.TempDir(), link)); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link, "/no/such/directory"} {
		if s, err := Take(t.Context(), dir, "x", 1, Options{}); err == nil {
			s.Close()
			t.Errorf("Take(%q) succeeded", dir)
		}
	}
}
