// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/nodecache"
)

// program makes one that answers with text, and notes each call in a file.
func program(t *testing.T, text string) (path, calls string) {
	t.Helper()
	dir := t.TempDir()
	path, calls = filepath.Join(dir, "program"), filepath.Join(dir, "calls")
	script := "#!/bin/sh\ncat >/dev/null\necho x >>" + calls + "\necho '" + text + "'\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path, calls
}

func TestLoad(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a profile has to be root's")
	}
	profile := filepath.Join(t.TempDir(), "seccomp.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(profile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	answers, calls := program(t, `{"Filter": {"Flags": 2, "Program": "AQID"}}`)
	m := nodecache.At(t.TempDir())
	for i, text := range []string{"a", "a", "b"} {
		write(text)
		f, err := Load(profile, answers, m)
		if err != nil || f.String() != "2:010203" {
			t.Fatalf("Load = %v, %v; want 2:010203", f, err)
		}
		log, err := os.ReadFile(calls)
		if want := []int{1, 1, 2}[i]; err != nil || strings.Count(string(log), "x") != want {
			t.Errorf("profile %d: %q, %v; want %d calls", i, log, err, want)
		}
	}
	refuses, _ := program(t, `{"Error": "it is wrong"}`)
	write("c")
	if _, err := Load(profile, refuses, m); err == nil || err.Error() != "seccomp profile "+profile+": it is wrong" || fault.Hint(err) == "" {
		t.Errorf("Load: %v; want that it is wrong, and a hint", err)
	}
	if err := os.Chmod(profile, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(profile, answers, m); err == nil || !strings.Contains(fault.Hint(err), "make it root's") {
		t.Errorf("Load: %v; want a profile that others can write refused", err)
	}
}

func TestInstallRefuses(t *testing.T) {
	for _, f := range []Filter{{}, {Program: []byte{1, 2, 3}}} {
		if err := f.Install(); err == nil {
			t.Errorf("Install of %v: no error", f.Program)
		}
	}
}
