// SPDX-License-Identifier: Apache-2.0

package safefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpen checks that no name leads out of the directory.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	inside := filepath.Join(dir, "in")
	err := errors.Join(os.Mkdir(inside, 0o755), os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600),
		os.WriteFile(filepath.Join(inside, "file"), nil, 0o600), os.Symlink("../theirs", filepath.Join(inside, "link")))
	if err != nil {
		t.Fatal(err)
	}
	at, err := os.Open(inside)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	for name, want := range map[string]error{"file": nil, "../theirs": unix.EXDEV, "link": unix.EXDEV, "none": fs.ErrNotExist} {
		f, err := Open(int(at.Fd()), name, unix.OpenHow{Flags: unix.O_RDONLY, Resolve: unix.RESOLVE_BENEATH})
		if !errors.Is(err, want) {
			t.Errorf("Open(%s) = %v; want %v", name, err, want)
		}
		if err == nil {
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("Open(%s): programs inherit it (%v)", name, err)
			}
			f.Close()
		}
	}
}

// TestReplace checks that a file is replaced as a whole, with its mode, that a link is not
// followed, and that nothing is left after an error.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	theirs, link := filepath.Join(dir, "theirs"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(theirs, []byte("kept"), 0o600), os.Symlink(theirs, link)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Replace(link, []byte("new"), 0o640, ".new-"); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(theirs); err != nil || string(text) != "kept" {
		t.Errorf("the file behind the link: %q, %v", text, err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode() != 0o640 {
		t.Errorf("the file: %v, %v", st, err)
	}
	if err := Replace(dir, []byte("new"), 0o600, ".new-"); err == nil {
		t.Error("a directory was replaced")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".new-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestMemory checks that nobody can change the content, nor make a buffer larger.
func TestMemory(t *testing.T) {
	fd, err := Memory("test", []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	defer f.Close()
	text := make([]byte, 8)
	if n, err := f.Read(text); err != nil || string(text[:n]) != "text" {
		t.Errorf("it holds %q, %v", text[:n], err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v", err)
	}
	b, err := Buffer("test", 4)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.WriteAt([]byte("1234"), 0); err != nil {
		t.Error(err)
	}
	if _, err := b.WriteAt([]byte("5"), 4); !errors.Is(err, unix.EPERM) {
		t.Errorf("write behind the end: %v", err)
	}
}
