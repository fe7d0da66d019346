// SPDX-License-Identifier: Apache-2.0

package external

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/trust"
)

// leave notes a script that is run at poststop, for an owner.
func leave(t *testing.T, dir, script string, owner int) string {
	t.Helper()
	needsRoot(t)
	path := filepath.Join(t.TempDir(), "program")
	write(t, path, "#!/bin/sh\n"+script, 0o755)
	d, err := parse([]byte(document(`, "hook": {"path": "` + path + `"}, "stages": ["prestart", "poststop"]`)))
	if err != nil {
		t.Fatal(err)
	}
	d.Path = "/d.json"
	state := specs.State{ID: "step-1.0", Bundle: "/proc", Annotations: map[string]string{"a": "b"}}
	note, err := Leave(dir, Hooks([]Descriptor{d}, Options{Timeout: time.Minute}), state, owner)
	if err != nil {
		t.Fatal(err)
	}
	return note
}

// ended returns the number of a process that has ended.
func ended(t *testing.T) int {
	t.Helper()
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid
}

func TestStopped(t *testing.T) {
	dir, out := filepath.Join(t.TempDir(), "made"), filepath.Join(t.TempDir(), "out")
	note := leave(t, dir, "cat >>"+out+"; pwd >>"+out, os.Getpid())
	other := leave(t, dir, "echo another owner >>"+out, os.Getpid())
	var told []string
	for range 2 { // once
		if err := Stopped(note, NewRunner(), func(line string) { told = append(told, line) }); err != nil {
			t.Fatal(err)
		}
	}
	want := `{"ociVersion":"","id":"step-1.0","status":"stopped","bundle":"/proc","annotations":{"a":"b"}}/proc` + "\n"
	if text, err := os.ReadFile(out); err != nil || string(text) != want || told != nil {
		t.Errorf("the program wrote %q, %v, told %q; want %q", text, err, told, want)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != filepath.Base(other) {
		t.Errorf("left are %v, %v; want what is another one's", left, err)
	}
}

// TestStoppedFails checks that a program that fails is told of, and the rest is run.
func TestStoppedFails(t *testing.T) {
	dir := t.TempDir()
	note := leave(t, dir, "echo one; echo two >&2; exit 3", os.Getpid())
	var told []string
	err := Stopped(note, NewRunner(), func(line string) { told = append(told, line) })
	want := "step-1.0: hook /d.json: poststop: program: two (exit status 3); it wrote: one; two"
	if err != nil || len(told) != 1 || told[0] != want {
		t.Errorf("Stopped = %v, told %q; want %q", err, told, want)
	}
	if _, err := os.Stat(note); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the note is left: %v", err)
	}
}

// TestStoppedForOthers checks what is done for those who cannot.
func TestStoppedForOthers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, note string) error
		runs   bool
		err    error
	}{
		{"the owner is gone", func(t *testing.T, note string) error {
			return replaceIn(note, `"PID":`+strconv.Itoa(os.Getpid()), `"PID":`+strconv.Itoa(ended(t)))
		}, true, nil},
		{"the owner is there", func(*testing.T, string) error { return nil }, false, nil},
		{"the owner's number is another's", func(_ *testing.T, note string) error { return replaceIn(note, `"Began":"`, `"Began":"9`) }, true, nil},
		{"others could write it", func(_ *testing.T, note string) error { return os.Chmod(note, 0o666) }, false, trust.ErrTamperable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			needsRoot(t)
			dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
			note := leave(t, dir, "echo ran >"+out, os.Getpid())
			if err := tt.change(t, note); err != nil {
				t.Fatal(err)
			}
			err := Stopped(filepath.Join(dir, "step-none"), NewRunner(), func(string) {})
			if _, statErr := os.Stat(out); (statErr == nil) != tt.runs || !errors.Is(err, tt.err) {
				t.Errorf("Stopped = %v, ran: %v; want %v", err, statErr == nil, tt.runs)
			}
		})
	}
}

// TestAbandoned checks that one who has died is gone, though nobody has waited for it.
func TestAbandoned(t *testing.T) {
	needsRoot(t)
	owner := exec.Command("sleep", "60")
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	defer owner.Wait()
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	leave(t, dir, "echo ran >"+out, owner.Process.Pid)
	err := errors.Join(owner.Process.Kill(), unix.Waitid(unix.P_PID, owner.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := Abandoned(dir, NewRunner(), func(string) {}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(out); err != nil {
		t.Errorf("it did not run: %v", err)
	}
}

func replaceIn(path, old, now string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.Replace(string(text), old, now, 1)), 0o600)
}

func TestLeaveNothing(t *testing.T) {
	d, err := parse([]byte(document("")))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "none")
	path, err := Leave(dir, Hooks([]Descriptor{d}, Options{}), specs.State{}, os.Getpid())
	if _, statErr := os.Stat(dir); path != "" || err != nil || statErr == nil {
		t.Errorf("Leave = %q, %v; want nothing", path, err)
	}
}

// TestLeaveProcesses checks that a process is killed though it was stopped, and that
// another one with its number is not.
func TestLeaveProcesses(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	c := exec.Command("sleep", "300")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Process.Kill()
	if err := c.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(text string) string
		killed bool
	}{
		{"another one with its number", func(text string) string { return strings.Replace(text, `"Began":"`, `"Began":"1`, 1) }, false},
		{"itself", func(text string) string { return text }, true},
	} {
		path, err := LeaveProcesses(dir, "1.0", []int{ended(t), c.Process.Pid}, os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(tt.change(string(text))), 0o600)
		}
		if err == nil {
			err = Stopped(path, NewRunner(), func(line string) { t.Errorf("told %q", line) })
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the note is left: %v", tt.name, err)
		}
		if !tt.killed {
			if p, err := identify(c.Process.Pid); err != nil || p.PID != c.Process.Pid {
				t.Errorf("%s: it was killed: %v", tt.name, err)
			}
			continue
		}
		if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("%s: Wait = %v", tt.name, err)
		}
	}
	if path, err := LeaveProcesses(dir, "1.0", []int{ended(t)}, os.Getpid()); path != "" || err != nil {
		t.Errorf("LeaveProcesses of nobody = %q, %v", path, err)
	}
}
