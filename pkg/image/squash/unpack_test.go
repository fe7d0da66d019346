// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

const sqfs2tar = "/usr/bin/sqfs2tar"

// squashfsOf makes a squashfs of a small tree and describes it as an image.
func squashfsOf(t *testing.T) Input {
	t.Helper()
	for _, program := range []string{sqfs2tar, "/usr/bin/mksquashfs"} {
		if _, err := os.Stat(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	tree, path := t.TempDir(), filepath.Join(t.TempDir(), "app.sqsh")
	for name, content := range map[string]string{"etc/passwd": "root:x:0:0::/:\n", "bin/app": "program", "empty": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("bin/app", filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(tree, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(tree, 0o750); err != nil {
		t.Fatal(err)
	}
	// A pseudo file needs no root: a device, which no image may have.
	if out, err := exec.Command("/usr/bin/mksquashfs", tree, path, "-all-root", "-quiet", "-no-progress", "-p", "kmsg c 666 0 0 1 11").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return Input{
		Manifest: layout.Manifest{Layers: []layout.Descriptor{{MediaType: layout.TypeSquashfs, Digest: layout.Digest(content), Size: int64(len(content))}}},
		Layers:   []*os.File{f},
	}
}

// unpack calls Unpack with files in a directory.
func unpack(t *testing.T, in Input, dir string, limits config.Convert) (Input, error) {
	t.Helper()
	var files [2]*os.File
	for i := range files {
		f, err := Scratch(filepath.Join(dir, ".tmp-x"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files[i] = f
	}
	return Unpack(t.Context(), in, files[0], files[1], sqfs2tar, limits)
}

func TestUnpack(t *testing.T) {
	in := squashfsOf(t)
	dir := t.TempDir()
	out, err := unpack(t, in, dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	image, err := convert(t, out)
	if err != nil {
		t.Fatal(err)
	}
	got := list(t, image)
	for _, name := range []string{"bin/app", "etc/passwd", "link", "fifo", "empty"} {
		if _, ok := got[name]; !ok {
			t.Errorf("there is no %s in %s", name, show(got))
		}
	}
	if _, ok := got["kmsg"]; ok {
		t.Error("the device is in the image")
	}
}

// TestUnpackRefuses checks above all that what a user has changed meanwhile is
// not stored under the digest of what it was.
func TestUnpackRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(in *Input)
		size  config.Size
		err   string
		hint  string
	}{
		{name: "another content", err: "the squashfs is corrupt", hint: "brolga rmi", spoil: func(in *Input) {
			in.Manifest.Layers[0].Digest = layout.Digest([]byte("x"))
		}},
		{name: "longer than it says", err: "the squashfs is corrupt", spoil: func(in *Input) { in.Manifest.Layers[0].Size-- }},
		{name: "shorter than it says", err: "the squashfs is corrupt", spoil: func(in *Input) { in.Manifest.Layers[0].Size++ }},
		{name: "not a squashfs", err: "unpack the squashfs: sqfs2tar: ", spoil: func(in *Input) {
			f, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString("hsqs"); err != nil {
				t.Fatal(err)
			}
			in.Layers[0] = f
			in.Manifest.Layers[0].Digest, in.Manifest.Layers[0].Size = layout.Digest([]byte("hsqs")), 4
		}},
		{name: "larger than allowed", size: 1000, err: "more data than the site allows", hint: "convert.unpacked", spoil: func(*Input) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := squashfsOf(t)
			tt.spoil(&in)
			limits := limits
			if tt.size > 0 {
				limits.Unpacked = tt.size
			}
			dir := t.TempDir()
			_, err := unpack(t, in, dir, limits)
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(fault.Hint(err), tt.hint) {
				t.Errorf("Unpack = %v (hint %q); want an error with %q (hint with %q)", err, fault.Hint(err), tt.err, tt.hint)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}
