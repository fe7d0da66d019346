// SPDX-License-Identifier: Apache-2.0

package userfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
)

// write makes a file in a fresh directory.
func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSquashfs(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(write(t, "hsqs"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	magicLink := fmt.Sprintf("/proc/self/fd/%d", open.Fd())
	for _, tt := range []struct {
		name, path string
		err, hint  string // substrings; no error means success
	}{
		{name: "squashfs", path: write(t, "hsqs and so on")},
		{name: "shortest", path: write(t, "hsqs")},

		{name: "empty", path: write(t, ""), err: "is not a squashfs"},
		{name: "text", path: write(t, "text"), err: "is not a squashfs"},
		{name: "tar", path: write(t, strings.Repeat("\x00", 257)+"ustar\x0000"), err: "is not a squashfs", hint: "an archive is named"},
		{name: "gzip", path: write(t, "\x1f\x8b"), err: "is not a squashfs", hint: "an archive is named"},
		{name: "SIF", path: write(t, "#!/usr/bin/env run-singularity\n\x00SIF_MAGIC"), err: "is not a squashfs", hint: "Apptainer"},
		{name: "missing", path: "/no/such", err: "open /no/such: no such file or directory"},
		{name: "directory", path: t.TempDir(), err: "is a directory", hint: "a root directory is named dir:"},
		{name: "FIFO", path: fifo, err: "is not a regular file"},
		{name: "device", path: "/dev/null", err: "is not a regular file"},
		{name: "open file of this process", path: magicLink, err: "too many levels of symbolic links"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Squashfs(tt.path)
			if tt.err == "" {
				if err != nil {
					t.Fatalf("Squashfs = %v", err)
				}
				f.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(fault.Hint(err), tt.hint) {
				t.Errorf("Squashfs = %v (hint %q); want an error with %q (hint with %q)", err, fault.Hint(err), tt.err, tt.hint)
			}
		})
	}
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	if f, err := Directory(dir); err != nil {
		t.Errorf("Directory = %v", err)
	} else {
		f.Close()
	}
	if _, err := Directory(write(t, "")); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("Directory of a file = %v", err)
	}
	if _, err := Directory(dir + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Directory of nothing = %v", err)
	}
}

// TestStamp checks that each way to change a file shows, and that a file that
// changed just now says nothing.
func TestStamp(t *testing.T) {
	path := write(t, "old")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stamp := func() string {
		text, err := Stamp(f)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if got := stamp(); got != "" {
		t.Errorf("Stamp of a new file = %q; want none", got)
	}
	settled := func() string {
		for {
			if got := stamp(); got != "" {
				return got
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	first := settled()
	if again := stamp(); again != first {
		t.Errorf("Stamp = %q; want %q", again, first)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, []byte("new"), 0o644), os.Chtimes(path, time.Time{}, st.ModTime())); err != nil {
		t.Fatal(err)
	}
	if now := settled(); now == first {
		t.Errorf("Stamp = %q after a change that keeps size and time", now)
	}
}

// TestWayOf checks what becomes of files of users and of root.
func TestWayOf(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a file that is root's alone")
	}
	dir, err := os.MkdirTemp("/opt", "brolga-source")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := func(name string, uid int, mode os.FileMode) *os.File {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte("hsqs"), 0o600), os.Chmod(path, mode), os.Chown(path, uid, 0)); err != nil {
			t.Fatal(err)
		}
		f, err := Squashfs(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	roots, users := file("roots", 0, 0o644), file("users", 4711, 0o644)
	groups := file("groups", 0, 0o664)
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.Symlink(roots.Name(), link), os.Lchown(link, 4711, 0)); err != nil {
		t.Fatal(err)
	}
	linked, err := Squashfs(link)
	if err != nil {
		t.Fatal(err)
	}
	defer linked.Close()
	for _, tt := range []struct {
		policy string
		f      *os.File
		want   Way
	}{
		{config.SquashfsFuse, users, Fuse},
		{config.SquashfsConvert, users, Convert},
		{config.SquashfsKernel, users, Kernel},
		{config.SquashfsDeny, users, ""},
		{config.SquashfsFuse, groups, Fuse},
		{config.SquashfsFuse, linked, Fuse},
		{config.SquashfsFuse, roots, Kernel},
		{config.SquashfsConvert, roots, Kernel},
		{config.SquashfsDeny, roots, ""},
	} {
		got, err := WayOf(Policy{UserSquashfs: tt.policy}, tt.f)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("WayOf(%s, %s) = %q, %v; want %q", tt.policy, filepath.Base(tt.f.Name()), got, err, tt.want)
		}
	}
}
