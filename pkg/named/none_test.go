// SPDX-License-Identifier: Apache-2.0

package named

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoteNone checks that the end of a job is told of no container only as long as
// there is none, nor about to be.
func TestNoteNone(t *testing.T) {
	s := site(t)
	note := func() string {
		t.Helper()
		must(t, NoteNone("/a.toml", s, "n1"))
		text, _ := os.ReadFile(filepath.Join(notesDir(), "n1"))
		return string(text)
	}
	if got := note(); got != "/a.toml" {
		t.Errorf("without containers %q is noted", got)
	}
	c := open(t, s, of(5, 0))
	if got := note(); got != "" {
		t.Errorf("with a container that is being made %q is noted", got)
	}
	must(t, c.Make(t.Context(), State{Image: "image"}))
	must(t, c.Release())
	if got := note(); got != "" {
		t.Errorf("with a container %q is noted", got)
	}
	must(t, Collect(s, "n1", Limits{Ended: 5, MaxSize: -1}, nil))
	opening, err := lockNotes(unix.LOCK_SH)
	must(t, err)
	if got := note(); got != "" {
		t.Errorf("while a container is opened %q is noted", got)
	}
	must(t, opening.Close())
	if got := note(); got != "/a.toml" {
		t.Errorf("when the containers are gone %q is noted", got)
	}
	if _, err := os.Stat(filepath.Join(notesDir(), "n2")); err == nil {
		t.Error("another node is spoken of")
	}
}

// TestOpenForgetsNone checks that no container is opened while its job's end would not
// look for it.
func TestOpenForgetsNone(t *testing.T) {
	s := site(t)
	must(t, os.MkdirAll(filepath.Join(notesDir(), "n1"), 0o755)) // cannot be unlinked
	if _, err := Open(s, of(5, 0), ada); err == nil {
		t.Error("Open succeeds")
	}
}
