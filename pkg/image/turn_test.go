// SPDX-License-Identifier: Apache-2.0

package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/image/slot"
)

// TestInTurn checks what a conversion does with its turn when the store has the image
// by then.
func TestInTurn(t *testing.T) {
	s := newSite(t)
	r := s.push(t, "1")
	img, err := Get(t.Context(), s.source(4711), r)
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
	mark := filepath.Join(s.dir, "ran")
	src := s.source(4711)
	src.Config.Client = "/bin/sh"
	g, err := newGetter(src, r)
	if err != nil {
		t.Fatal(err)
	}
	run := func(must bool) (ran bool) {
		t.Helper()
		if err := g.inTurn(t.Context(), img.Meta.Digest, must, command.Cmd{Args: []string{"-c", ": >" + mark}}); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(mark)
		os.Remove(mark)
		return err == nil
	}
	if run(false) {
		t.Error("an image that the store has was converted")
	}
	// A signature has to be verified even so.
	if !run(true) {
		t.Error("the conversion that must run did not")
	}
}

// TestInTurnWaits checks that a conversion waits for those of the same user, says so,
// and gives its turn back.
func TestInTurnWaits(t *testing.T) {
	s := newSite(t)
	r := s.push(t, "1")
	dir := filepath.Join(s.dir, "run/convert")
	first, err := slot.Take(t.Context(), dir, "user-4711", 1, slot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if img, err := Get(t.Context(), s.source(4712), r); err != nil {
		t.Errorf("another user: %v", err)
	} else {
		img.Close()
	}
	second := s.push(t, "2")
	var said []string
	done := make(chan error)
	go func() {
		src := s.source(4711)
		src.Tell = func(line string) { said = append(said, line) }
		img, err := Get(t.Context(), src, second)
		if err == nil {
			img.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("Get did not wait: %v", err)
	case <-time.After(2 * time.Second): // a conversion takes a tenth
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || !strings.Contains(said[0], "for other conversions") {
		t.Errorf("Get said %q", said)
	}
	last, err := slot.Take(t.Context(), dir, "user-4711", 1, slot.Options{Waits: func() { t.Error("the turn is not over") }})
	if err != nil {
		t.Fatal(err)
	}
	last.Close()
}

// TestTurnOfOneWhoIsStopped checks that the wait for a user's step keeps no other user
// waiting: tasks can be stopped for as long as their user likes.
func TestTurnOfOneWhoIsStopped(t *testing.T) {
	s := newSite(t)
	get := func(uid uint32, image string, limits func() (MakeCgroup, error)) error {
		src := s.source(uid)
		src.Config.Convert.PerNode, src.Limits = 1, limits
		img, err := Get(t.Context(), src, s.push(t, image))
		if err == nil {
			img.Close()
		}
		return err
	}
	waits, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		done <- get(4711, "1", func() (MakeCgroup, error) { close(waits); <-goOn; return nil, nil })
	}()
	<-waits
	if err := get(4712, "2", nil); err != nil {
		t.Errorf("another user: %v", err)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
