// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
)

// saveTree saves a directory and returns the path of the squashfs. tar2sqfs gets
// the target as descriptor 3, as it is in the process that saves.
func saveTree(t *testing.T, root string, change func(*Saved)) (string, error) {
	t.Helper()
	program, err := exec.LookPath("tar2sqfs")
	if err != nil {
		t.Skip("needs tar2sqfs")
	}
	target := t.TempDir()
	s := Saved{Root: openDir(t, root), Dir: openDir(t, target), Name: "out", Tar2sqfs: program}
	if change != nil {
		change(&s)
	}
	return filepath.Join(target, "out"), Save(t.Context(), s, config.Default().Convert)
}

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// layTree makes one of each kind of file.
func layTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	check(t,
		os.MkdirAll(at("dir/empty"), 0o755),
		os.WriteFile(at("dir/file"), []byte("text"), 0o640),
		os.Link(at("dir/file"), at("dir/name")),
		os.WriteFile(at("nothing"), nil, 0o600),
		os.Link(at("nothing"), at("dir/nothing")),
		os.WriteFile(at(" strange\n\\\xff"), []byte("x"), 0o600),
		os.Symlink("/etc/passwd", at("link")),
		os.Symlink("gone", at("dangling")),
		unix.Mkfifo(at("fifo"), 0o600),
		unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0),
		os.Chmod(at("dir"), os.ModeSticky|0o777),
		os.WriteFile(at("setuid"), []byte("x"), 0o600),
		os.Chmod(at("setuid"), 0o4711|os.ModeSetuid),
		os.Chmod(at("."), 0o750),
	)
	if err := unix.Setxattr(at("dir/file"), "user.a", []byte("b"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	return root
}

// listing is what unsquashfs says is in an image, less times and owners.
func listing(t *testing.T, image string) []string {
	t.Helper()
	out, err := exec.Command("unsquashfs", "-lln", image).Output()
	if err != nil {
		t.Skip("needs unsquashfs: ", err)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) > 4 {
			all = append(all, fields[0]+" "+strings.TrimPrefix(strings.Join(fields[5:], " "), "squashfs-root"))
		}
	}
	return all
}

func TestSave(t *testing.T) {
	root := layTree(t)
	first, err := saveTree(t, root, nil)
	check(t, err)
	got := listing(t, first)
	for _, want := range []string{
		"drwxr-x--- ", "drwxrwxrwt /dir", "drwxr-xr-x /dir/empty", "-rw-r----- /dir/file", "-rw-r----- /dir/name",
		"-rw------- /nothing", "lrwxrwxrwx /link -> /etc/passwd", "lrwxrwxrwx /dangling -> gone", "prw------- /fifo",
		"-rws--x--x /setuid",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	if slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "socket") }) {
		t.Errorf("a socket is saved: %q", got)
	}
	second, err := saveTree(t, root, nil)
	check(t, err)
	a, err1 := os.ReadFile(first)
	b, err2 := os.ReadFile(second)
	check(t, err1, err2)
	if string(a) != string(b) {
		t.Error("the same files give other bytes")
	}
}

func TestSaveMapsRoot(t *testing.T) {
	root := t.TempDir()
	check(t, os.WriteFile(filepath.Join(root, "mine"), []byte("x"), 0o600))
	image, err := saveTree(t, root, func(s *Saved) { s.UID, s.GID = uint32(os.Getuid()), uint32(os.Getgid()) })
	check(t, err)
	out, err := exec.Command("unsquashfs", "-lln", image).Output()
	if err != nil {
		t.Skip("needs unsquashfs")
	}
	if !strings.Contains(string(out), "-rw------- 0/0 ") {
		t.Errorf("the user's file is not root's:\n%s", out)
	}
}

// TestSaveWhatMayChange checks that nothing outside of the tree is opened, whatever
// becomes of it while it is read.
func TestSaveWhatMayChange(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	check(t, os.WriteFile(filepath.Join(outside, "file"), []byte("secret"), 0o600), os.Symlink(outside, filepath.Join(root, "dir")))
	w := walker{saved: Saved{Root: openDir(t, root)}, left: newBudget(config.Default().Convert), seen: map[fileID]*node{}}
	for _, name := range []string{"dir/file", "dir", "../x", "/etc/passwd"} {
		f, err := w.open(name, unix.O_RDONLY)
		if err == nil && name != "/etc/passwd" {
			t.Errorf("%s is opened as %s", name, f.Name())
		}
		if err == nil {
			f.Close()
		}
	}
	path := filepath.Join(root, "file")
	for _, tt := range []struct {
		name   string
		change func() error
	}{
		{"shorter", func() error { return os.WriteFile(path, []byte("x"), 0o600) }},
		{"a FIFO", func() error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) }},
		{"a link", func() error {
			return errors.Join(os.Remove(path), os.Symlink(filepath.Join(outside, "file"), path))
		}},
		{"gone", func() error { return os.Remove(path) }},
	} {
		check(t, os.RemoveAll(path), os.WriteFile(path, []byte("secret"), 0o600))
		n, err := w.entry(openDir(t, root), "file", "file")
		check(t, err, tt.change())
		if err := w.content(newWriter("", "", 0), "file", n); err == nil {
			t.Errorf("%s: the content is saved", tt.name)
		}
	}
}

func TestSaveFails(t *testing.T) {
	root := t.TempDir()
	check(t, os.WriteFile(filepath.Join(root, "file"), []byte("x"), 0o600))
	image, err := saveTree(t, root, func(s *Saved) { s.Tar2sqfs = "/bin/false" })
	if err == nil {
		t.Error("Save = nil; want an error")
	}
	if _, err := os.Lstat(image); err == nil {
		t.Error("a file is left")
	}
	limits := config.Default().Convert
	limits.Files = 1
	check(t, os.WriteFile(filepath.Join(root, "another"), nil, 0o600))
	err = Save(t.Context(), Saved{Root: openDir(t, root), Dir: openDir(t, t.TempDir()), Name: "out", Tar2sqfs: "/bin/false"}, limits)
	if err == nil || !strings.Contains(err.Error(), "files") {
		t.Errorf("Save of too many files = %v; want an error that says so", err)
	}
}
