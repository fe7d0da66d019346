// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes files for the tests below a directory that is root's alone.
type tree struct {
	*testing.T
	dir string
}

func newTree(t *testing.T) tree {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes files of root and of others")
	}
	return tree{t, t.TempDir()}
}

func (t tree) path(name string) string { return filepath.Join(t.dir, name) }

func (t tree) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t tree) mkdir(name string, owner int, mode fs.FileMode) {
	t.Helper()
	t.must(os.MkdirAll(t.path(name), 0o755))
	t.must(os.Chown(t.path(name), owner, owner))
	t.must(os.Chmod(t.path(name), mode))
}

func (t tree) file(name string, owner int, mode fs.FileMode) {
	t.Helper()
	t.must(os.MkdirAll(filepath.Dir(t.path(name)), 0o755))
	t.must(os.WriteFile(t.path(name), []byte(name), 0o600))
	t.must(os.Chown(t.path(name), owner, owner))
	t.must(os.Chmod(t.path(name), mode))
}

func (t tree) link(name, target string, owner int) {
	t.Helper()
	t.must(os.MkdirAll(filepath.Dir(t.path(name)), 0o755))
	t.must(os.Symlink(target, t.path(name)))
	t.must(os.Lchown(t.path(name), owner, owner))
}

func TestCheck(t *testing.T) {
	tr := newTree(t)
	const user = 4711
	tr.file("good/file", 0, 0o644)
	tr.file("good/program", 0, 0o755)
	tr.file("good/group-writable", 0, 0o664)
	tr.file("good/writable", 0, 0o646)
	tr.file("good/theirs", user, 0o644)
	tr.file("open/file", 0, 0o644)
	tr.file("open/below/file", 0, 0o644)
	tr.link("open/link", tr.path("good/file"), 0)
	tr.mkdir("open", 0, 0o777)
	tr.file("group/file", 0, 0o644)
	tr.mkdir("group", 0, 0o775)
	tr.file("theirs/file", 0, 0o644)
	tr.link("theirs/link", tr.path("good/file"), user)
	tr.mkdir("theirs", user, 0o755)
	tr.file("sticky/file", 0, 0o644)
	tr.file("sticky/theirs", user, 0o644)
	tr.link("sticky/link", tr.path("good/file"), 0)
	tr.link("sticky/their-link", tr.path("good/file"), user)
	tr.mkdir("sticky", 0, fs.ModeSticky|0o777)
	tr.link("links/good", tr.path("good/file"), 0)
	tr.link("links/relative", "../good/file", 0)
	tr.link("links/dir", "../good", 0)
	tr.link("links/twice", "good", 0)
	tr.link("links/bad", tr.path("theirs/file"), 0)
	tr.link("links/through-theirs", "../theirs/link", 0)
	tr.link("links/climbs", "../open/../good/file", 0)
	tr.link("links/loop", "loop", 0)

	for _, tt := range []struct {
		path string
		want error
	}{
		{"good/file", nil},
		{"good/program", nil},
		{"sticky/file", nil},
		{"sticky/link", nil},
		{"links/good", nil},
		{"links/relative", nil},
		{"links/dir/file", nil},
		{"links/twice", nil},

		{"good/group-writable", ErrTamperable},
		{"good/writable", ErrTamperable},
		{"good/theirs", ErrTamperable},
		{"open/file", ErrTamperable},
		{"open/below/file", ErrTamperable},
		{"open/link", ErrTamperable},
		{"group/file", ErrTamperable},
		{"theirs/file", ErrTamperable},
		{"theirs/link", ErrTamperable},
		{"sticky/theirs", ErrTamperable},
		{"sticky/their-link", ErrTamperable},
		{"links/bad", ErrTamperable},
		{"links/through-theirs", ErrTamperable},
		{"links/climbs", ErrTamperable},
		{"good/missing", fs.ErrNotExist},
		{"missing/file", fs.ErrNotExist},
	} {
		t.Run(tt.path, func(t *testing.T) {
			err := Check(tr.path(tt.path))
			if !errors.Is(err, tt.want) || (tt.want != ErrTamperable && errors.Is(err, ErrTamperable)) {
				t.Errorf("Check(%s) = %v; want %v", tt.path, err, tt.want)
			}
			_, err = Read(tr.path(tt.path))
			// Where the kernel protects from such links it is first to refuse them
			// (proc(5), protected_symlinks).
			protected := tt.path == "sticky/their-link" && errors.Is(err, fs.ErrPermission)
			if !errors.Is(err, tt.want) && !protected {
				t.Errorf("Read(%s) = %v; want %v", tt.path, err, tt.want)
			}
		})
	}
	if err := Check(tr.path("links/loop")); err == nil || errors.Is(err, ErrTamperable) {
		t.Errorf("Check of a link to itself = %v; want an error that is no answer", err)
	}
}

// TestCheckNames checks that the answer names the directory that is at fault.
func TestCheckNames(t *testing.T) {
	tr := newTree(t)
	tr.file("a/b/file", 0, 0o644)
	tr.mkdir("a", 4711, 0o750)
	want := tr.path("a") + " (owner 4711, mode 0750): someone other than root could change it"
	if err := Check(tr.path("a/b/file")); err == nil || err.Error() != want {
		t.Errorf("Check = %v; want %s", err, want)
	}
}

func TestCheckRelative(t *testing.T) {
	for _, path := range []string{"", ".", "etc/passwd", "../etc"} {
		if err := Check(path); err == nil || errors.Is(err, ErrTamperable) {
			t.Errorf("Check(%q) = %v; want an error that is no answer", path, err)
		}
	}
}

func TestReadContent(t *testing.T) {
	tr := newTree(t)
	tr.file("file", 0, 0o644)
	tr.link("link", "file", 0)
	for _, name := range []string{"file", "link"} {
		if got, err := Read(tr.path(name)); err != nil || string(got) != "file" {
			t.Errorf("Read(%s) = %q, %v; want its content", name, got, err)
		}
	}
}

func TestMapsOne(t *testing.T) {
	for users, want := range map[string]bool{
		"         0       1000          1\n":              true,
		"      1000       1000          1\n":              true,
		"         0          0 4294967295\n":              false, // the host's
		"         0          0          1\n":              false, // root's own
		"         0       1000          1\n 1 100000 9\n": false, // others exist
		"": false,
	} {
		if got := mapsOne(users); got != want {
			t.Errorf("mapsOne(%q) = %v; want %v", users, got, want)
		}
	}
}

// TestCheckOf checks that what belongs to one user is good for that user alone.
func TestCheckOf(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives files away")
	}
	dir, err := os.MkdirTemp("", "trust") // in a directory that is root's
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	theirs, link := filepath.Join(dir, "theirs"), filepath.Join(dir, "link")
	err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(theirs, 0o711), os.Chown(theirs, 4711, 4711), os.Symlink("/usr", link), os.Lchown(link, 4712, 4712))
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckOf(theirs, 4711, "ada"); err != nil {
		t.Errorf("CheckOf = %v", err)
	}
	for _, tt := range []struct {
		path  string
		owner uint32
		mode  os.FileMode
	}{{theirs, 4712, 0o711}, {theirs, 4711, 0o733}, {link, 4711, 0o711}, {filepath.Join(link, "bin"), 4711, 0o711}} {
		if err := os.Chmod(theirs, tt.mode); err != nil {
			t.Fatal(err)
		}
		err := CheckOf(tt.path, tt.owner, "ada")
		if !errors.Is(err, ErrTamperable) || !strings.Contains(err.Error(), "someone other than root and ada could change it") {
			t.Errorf("CheckOf(%s, %d) = %v", tt.path, tt.owner, err)
		}
	}
}

// TestMakeAll checks that nothing is made below what another user could change.
func TestMakeAll(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives files away")
	}
	dir, err := os.MkdirTemp("", "trust")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	theirs := filepath.Join(dir, "theirs")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(theirs, 0o755), os.Chown(theirs, 4711, 4711), os.Symlink(theirs, filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := MakeAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
			t.Errorf("MakeAll = %v", err)
		}
	}
	for _, path := range []string{"theirs/a/b", "link/a/b"} {
		if err := MakeAll(filepath.Join(dir, path), 0o755); !errors.Is(err, ErrTamperable) {
			t.Errorf("MakeAll(%s) = %v", path, err)
		}
	}
	if made, err := os.ReadDir(theirs); err != nil || len(made) != 0 {
		t.Errorf("made are %v, %v", made, err)
	}
}
