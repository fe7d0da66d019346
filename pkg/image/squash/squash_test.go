// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

const tar2sqfs = "/usr/bin/tar2sqfs"

var limits = config.Default().Convert

// member is a file of a layer.
type member struct {
	hdr  tar.Header
	data string
}

func regular(name, data string) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}

func dir(name string) member {
	return member{tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}, ""}
}

func symlink(name, target string) member {
	return member{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}, ""}
}

func hardlink(name, target string) member {
	return member{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}, ""}
}

func with(m member, change func(*tar.Header)) member {
	change(&m.hdr)
	return m
}

func mode(bits int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = bits } }

func tarOf(t testing.TB, members []member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		hdr := m.hdr
		hdr.Size = int64(len(m.data))
		if hdr.ModTime.IsZero() {
			hdr.ModTime = time.Unix(1000, 0)
		}
		if err := w.WriteHeader(&hdr); err != nil {
			t.Fatalf("%q: %v", hdr.Name, err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// input makes an image of tar files, compressed by the functions in turn.
func input(t testing.TB, tars [][]byte, compress ...func(testing.TB, []byte) []byte) Input {
	t.Helper()
	var conf imageConfig
	var in Input
	for i, plain := range tars {
		blob := plain
		if len(compress) > 0 {
			blob = compress[i%len(compress)](t, plain)
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.Write(blob); err != nil {
			t.Fatal(err)
		}
		conf.RootFS.DiffIDs = append(conf.RootFS.DiffIDs, layout.Digest(plain))
		in.Layers = append(in.Layers, f)
		in.Manifest.Layers = append(in.Manifest.Layers, layout.Descriptor{Digest: layout.Digest(blob), Size: int64(len(blob))})
	}
	in.setConfig(t, conf)
	return in
}

func (in *Input) setConfig(t testing.TB, conf imageConfig) {
	t.Helper()
	var err error
	if in.Config, err = json.Marshal(conf); err != nil {
		t.Fatal(err)
	}
	in.Manifest.Config.Digest = layout.Digest(in.Config)
}

func convert(t testing.TB, in Input) (string, error) {
	t.Helper()
	if _, err := os.Stat(tar2sqfs); err != nil {
		t.Skip("needs tar2sqfs")
	}
	out := filepath.Join(t.TempDir(), "out.squashfs")
	_, err := Convert(t.Context(), in, out, tar2sqfs, limits)
	return out, err
}

// list unpacks a squashfs and describes every file: directories as "d",
// symbolic links as "-> target", files by content. Further names of a file are
// "= first name".
func list(t testing.TB, image string) map[string]string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	if out, err := exec.Command("unsquashfs", "-no-progress", "-d", root, image).CombinedOutput(); err != nil {
		t.Fatalf("unsquashfs: %v\n%s", err, out)
	}
	got := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		info, err := e.Info()
		if err != nil {
			return err
		}
		inode := info.Sys().(*syscall.Stat_t).Ino
		if was, ok := first[inode]; ok {
			got[name] = "= " + was
			return nil
		}
		first[inode] = name
		got[name], err = describe(path, info)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func describe(path string, info fs.FileInfo) (string, error) {
	switch info.Mode().Type() {
	case fs.ModeDir:
		return "d", nil
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		return "-> " + target, err
	case fs.ModeNamedPipe:
		return "fifo", nil
	case 0:
		b, err := os.ReadFile(path)
		return string(b), err
	}
	return info.Mode().String(), nil
}

// TestConvertLayers applies layers by the rules of the image specification.
func TestConvertLayers(t *testing.T) {
	long := strings.Repeat("n", 255)
	deep := strings.Repeat("long-directory-name/", 60)
	for _, tt := range []struct {
		name   string
		layers [][]member
		want   map[string]string
		err    string // substring of the error; empty means success
	}{
		{name: "no layers", want: map[string]string{}},
		{
			name:   "upper file wins",
			layers: [][]member{{regular("a", "1")}, {regular("a", "2")}},
			want:   map[string]string{"a": "2"},
		},
		{
			name:   "last one in a layer wins",
			layers: [][]member{{regular("a", "1"), regular("./a", "2")}},
			want:   map[string]string{"a": "2"},
		},
		{
			name:   "parents appear",
			layers: [][]member{{regular("a/b/c", "1")}},
			want:   map[string]string{"a": "d", "a/b": "d", "a/b/c": "1"},
		},
		{
			name:   "whiteout",
			layers: [][]member{{regular("a/x", "1"), regular("a/y", "2")}, {regular("a/.wh.x", "")}},
			want:   map[string]string{"a": "d", "a/y": "2"},
		},
		{
			name:   "whiteout of a directory",
			layers: [][]member{{regular("a/b/x", "1")}, {regular(".wh.a", "")}},
			want:   map[string]string{},
		},
		{
			name:   "whiteout of nothing",
			layers: [][]member{{regular("a", "1")}, {regular("b/.wh.x", ""), regular(".wh.y", ""), regular("a/.wh.z", "")}},
			want:   map[string]string{"a": "1"},
		},
		{
			name:   "whiteout after its replacement",
			layers: [][]member{{regular("a/x", "1")}, {regular("a/x", "2"), regular("a/.wh.x", "")}},
			want:   map[string]string{"a": "d", "a/x": "2"},
		},
		{
			name:   "whiteout in its own layer hides nothing of it",
			layers: [][]member{{regular("a", "1"), regular(".wh.a", "")}},
			want:   map[string]string{"a": "1"},
		},
		{
			name:   "hidden and back",
			layers: [][]member{{regular("a", "1")}, {regular(".wh.a", "")}, {regular("a", "3")}},
			want:   map[string]string{"a": "3"},
		},
		{
			name:   "opaque first",
			layers: [][]member{{regular("a/x", "1"), regular("a/b/y", "2")}, {dir("a"), regular("a/.wh..wh..opq", ""), regular("a/z", "3")}},
			want:   map[string]string{"a": "d", "a/z": "3"},
		},
		{
			name:   "opaque last",
			layers: [][]member{{regular("a/x", "1")}, {regular("a/z", "3"), regular("a/.wh..wh..opq", "")}},
			want:   map[string]string{"a": "d", "a/z": "3"},
		},
		{
			name:   "opaque root",
			layers: [][]member{{regular("x", "1")}, {regular(".wh..wh..opq", ""), regular("y", "2")}},
			want:   map[string]string{"y": "2"},
		},
		{
			name:   "names of AUFS",
			layers: [][]member{{regular(".wh..wh.plnk/1.2", "x"), regular(".wh..wh.aufs", ""), regular("a", "1")}},
			want:   map[string]string{"a": "1"},
		},
		{
			name:   "file becomes directory",
			layers: [][]member{{regular("a", "1")}, {dir("a"), regular("a/x", "2")}},
			want:   map[string]string{"a": "d", "a/x": "2"},
		},
		{
			name:   "directory becomes file",
			layers: [][]member{{regular("a/x", "1")}, {regular("a", "2")}},
			want:   map[string]string{"a": "2"},
		},
		{
			name:   "directory described again keeps its content",
			layers: [][]member{{regular("a/x", "1")}, {dir("a")}},
			want:   map[string]string{"a": "d", "a/x": "1"},
		},
		{
			name:   "directory becomes link",
			layers: [][]member{{regular("lib/x", "1")}, {symlink("lib", "usr/lib")}},
			want:   map[string]string{"lib": "-> usr/lib"},
		},
		{
			name:   "link of a lower layer becomes directory",
			layers: [][]member{{symlink("lib", "usr/lib"), dir("usr/lib")}, {regular("lib/x", "1")}},
			want:   map[string]string{"lib": "d", "lib/x": "1", "usr": "d", "usr/lib": "d"},
		},
		{
			name:   "link of the same layer is followed",
			layers: [][]member{{dir("usr/lib"), symlink("lib", "/usr/../usr/lib"), regular("lib/x", "1")}},
			want:   map[string]string{"lib": "-> /usr/../usr/lib", "usr": "d", "usr/lib": "d", "usr/lib/x": "1"},
		},
		{
			name:   "link cannot lead out",
			layers: [][]member{{symlink("up", "../../../.."), regular("up/x", "1")}},
			want:   map[string]string{"up": "-> ../../../..", "x": "1"},
		},
		{
			name:   "hard links",
			layers: [][]member{{regular("a", "1"), hardlink("b", "a"), hardlink("c", "/b")}},
			want:   map[string]string{"a": "1", "b": "= a", "c": "= a"},
		},
		{
			name:   "hard link keeps what its target was",
			layers: [][]member{{regular("a", "1"), hardlink("b", "a")}, {regular("a", "2")}},
			want:   map[string]string{"a": "2", "b": "1"},
		},
		{
			name:   "hard link keeps what its target was, same layer",
			layers: [][]member{{regular("a", "1"), hardlink("b", "a"), regular("a", "2")}},
			want:   map[string]string{"a": "2", "b": "1"},
		},
		{
			name:   "hard link outlives a whiteout",
			layers: [][]member{{regular("a", "1"), hardlink("b", "a"), hardlink("c", "a")}, {regular(".wh.a", "")}},
			want:   map[string]string{"b": "1", "c": "= b"},
		},
		{
			name:   "hard link into a lower layer",
			layers: [][]member{{regular("d/a", "1"), symlink("e", "d")}, {hardlink("b", "e/a")}},
			want:   map[string]string{"b": "1", "d": "d", "d/a": "= b", "e": "-> d"},
		},
		{
			name:   "hard link to link",
			layers: [][]member{{symlink("a", "x"), hardlink("b", "a")}},
			want:   map[string]string{"a": "-> x", "b": "= a"},
		},
		{
			name:   "names are inside",
			layers: [][]member{{regular("../../a", "1"), regular("/b", "2"), regular("c/../../d", "3"), regular("./e//f", "4"), dir("."), dir("../..")}},
			want:   map[string]string{"a": "1", "b": "2", "d": "3", "e": "d", "e/f": "4"},
		},
		{
			name: "devices are dropped, FIFOs kept",
			layers: [][]member{{
				{tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, ""},
				{tar.Header{Typeflag: tar.TypeBlock, Name: "disk"}, ""},
				{tar.Header{Typeflag: tar.TypeFifo, Name: "pipe"}, ""},
			}},
			want: map[string]string{"pipe": "fifo"},
		},
		{
			name:   "strange names",
			layers: [][]member{{regular(long, "1"), regular(deep+"x", "2"), regular("new\nline", "3"), regular("caf\xe9", "4"), regular("é ü", "5"), regular(" ", "6"), regular("-x", "7")}},
			want: func() map[string]string {
				want := map[string]string{long: "1", deep + "x": "2", "new\nline": "3", "caf\xe9": "4", "é ü": "5", " ": "6", "-x": "7"}
				for d := filepath.Dir(deep + "x"); d != "."; d = filepath.Dir(d) {
					want[d] = "d"
				}
				return want
			}(),
		},

		{name: "hard link to nothing", layers: [][]member{{hardlink("b", "a")}}, err: `hard link "b": there is no "a"`},
		{name: "hard link to directory", layers: [][]member{{dir("a"), hardlink("b", "a")}}, err: `"a" is a directory`},
		{name: "hard link to root", layers: [][]member{{hardlink("b", "..")}}, err: "bad target"},
		{name: "root is a file", layers: [][]member{{regular(".", "1")}}, err: "the root is not a directory"},
		{name: "link loop", layers: [][]member{{symlink("a", "b"), symlink("b", "a"), regular("a/x", "1")}}, err: "too many symbolic links"},
		{name: "long part", layers: [][]member{{regular(long+"x", "1")}}, err: "longer than 255 bytes"},
		{name: "long name", layers: [][]member{{regular(strings.Repeat("long-directory-name/", 300)+"x", "1")}}, err: "longer than 4095 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var tars [][]byte
			for _, members := range tt.layers {
				tars = append(tars, tarOf(t, members))
			}
			in := input(t, tars, gzipped, zstandard)
			out, err := convert(t, in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "layer sha256:") {
					t.Fatalf("Convert = %v; want an error with a layer and %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("Convert = %v", err)
			}
			if got := list(t, out); !maps.Equal(got, tt.want) {
				t.Errorf("the image has %s\nwant %s", show(got), show(tt.want))
			}
		})
	}
}

func show(files map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "\n  %q: %q", name, files[name])
	}
	return b.String()
}

// TestConvertMetadata checks modes, owners, times and attributes.
func TestConvertMetadata(t *testing.T) {
	attrs := func(h *tar.Header) {
		h.PAXRecords = map[string]string{
			"SCHILY.xattr.user.keep":              "a\x00b",
			"SCHILY.xattr.security.capability":    "x",
			"SCHILY.xattr.trusted.overlay.opaque": "y",
			"SCHILY.xattr.user.overlay.opaque":    "y",
		}
	}
	owner := func(h *tar.Header) { h.Uid, h.Gid = 3_000_000_000, 4 }
	in := input(t, [][]byte{tarOf(t, []member{
		with(dir("."), mode(0o710)),
		with(regular("setuid", "x"), mode(0o4755)),
		with(regular("attrs", "x"), attrs),
		with(regular("owner", "x"), owner),
		with(dir("dir"), mode(0o1777)),
		with(regular("old", "x"), func(h *tar.Header) { h.ModTime = time.Unix(-5, 0) }),
	}), tarOf(t, []member{
		with(dir("dir"), mode(0o700)),
	})}, gzipped)
	out, err := convert(t, in)
	if err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command("unsquashfs", "-UTC", "-lln", out).CombinedOutput()
	if err != nil {
		t.Fatalf("unsquashfs: %v\n%s", err, text)
	}
	for _, want := range []string{
		"drwx--x--- 0/0 77 1970-01-01 00:16 squashfs-root",
		"-rwsr-xr-x 0/0 1 1970-01-01 00:16 squashfs-root/setuid",
		"-rw-r--r-- 3000000000/4 1 1970-01-01 00:16 squashfs-root/owner",
		"drwx------ 0/0 3 1970-01-01 00:16 squashfs-root/dir",
		"-rw-r--r-- 0/0 1 1970-01-01 00:00 squashfs-root/old",
	} {
		if !strings.Contains(strings.Join(strings.Fields(string(text)), " ")+" ", want+" ") {
			t.Errorf("the image lacks %q:\n%s", want, text)
		}
	}
	root := filepath.Join(t.TempDir(), "root")
	if text, err := exec.Command("unsquashfs", "-no-progress", "-d", root, out).CombinedOutput(); err != nil {
		t.Skipf("unsquashfs cannot write attributes here: %s", text)
	}
	buf := make([]byte, 1024)
	n, err := unix.Listxattr(filepath.Join(root, "attrs"), buf)
	if err != nil || strings.Contains(string(buf[:n]), "capability") || strings.Contains(string(buf[:n]), "overlay") || !strings.Contains(string(buf[:n]), "user.keep\x00") {
		t.Errorf("attributes = %q, %v; want user.keep", buf[:n], err)
	}
	if n, err := unix.Getxattr(filepath.Join(root, "attrs"), "user.keep", buf); err != nil || string(buf[:n]) != "a\x00b" {
		t.Errorf("user.keep = %q, %v; want %q", buf[:n], err, "a\x00b")
	}
}

// TestConvertFormats reads what GNU tar writes: sparse files and long names, of
// its own format and of PAX.
func TestConvertFormats(t *testing.T) {
	src := t.TempDir()
	f, err := os.Create(filepath.Join(src, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := f.WriteAt([]byte("begin"), 1<<20)
	_, err2 := f.WriteAt([]byte("end"), 5<<20)
	long := strings.Repeat("x", 200)
	if err := errors.Join(err1, err2, f.Close(), os.WriteFile(filepath.Join(src, long), []byte("1"), 0o600)); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(src, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "pax"} {
		t.Run(format, func(t *testing.T) {
			plain, err := exec.Command("tar", "--create", "--sparse", "--format="+format, "--directory="+src, ".").Output()
			if err != nil {
				t.Skipf("tar: %v", err)
			}
			if len(plain) > 1<<20 {
				t.Skip("this file system has no sparse files")
			}
			out, err := convert(t, input(t, [][]byte{plain}, gzipped))
			if err != nil {
				t.Fatal(err)
			}
			got := list(t, out)
			if got["sparse"] != string(want) || got[long] != "1" {
				t.Errorf("the image has a sparse file of %d bytes and %q; want %d and %q", len(got["sparse"]), got[long], len(want), "1")
			}
		})
	}
}

func TestConvertIsReproducible(t *testing.T) {
	var members []member
	for i := range 500 {
		members = append(members, regular(fmt.Sprintf("d%d/f%d", i%7, i), strings.Repeat(fmt.Sprint(i), i*50)))
	}
	tars := [][]byte{tarOf(t, members), tarOf(t, members[100:300]), tarOf(t, []member{hardlink("link", "d3/f3"), symlink("s", "link")})}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var first []byte
	for _, processors := range []int{1, 2, 8} {
		runtime.GOMAXPROCS(processors)
		out, err := convert(t, input(t, tars, gzipped, zstandard))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(b, first) {
			t.Errorf("with %d processors the image differs", processors)
		}
		first = b
	}
}

// TestConvertRefuses lists what is wrong with an image as a whole.
func TestConvertRefuses(t *testing.T) {
	good := func(t *testing.T) Input {
		return input(t, [][]byte{tarOf(t, []member{regular("a", "1")}), tarOf(t, []member{regular("b", "2")})}, gzipped)
	}
	flip := func(t *testing.T, f *os.File, at int64) {
		b := []byte{0}
		_, err1 := f.ReadAt(b, at)
		b[0] ^= 0xff
		_, err2 := f.WriteAt(b, at)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*testing.T, *Input)
		err   string
	}{
		{"damaged layer", func(t *testing.T, in *Input) { flip(t, in.Layers[1], in.Manifest.Layers[1].Size-1) }, "layer "},
		{"other digest", func(t *testing.T, in *Input) { in.Manifest.Layers[0].Digest = layout.Digest(nil) }, "is corrupt"},
		{"shorter layer", func(t *testing.T, in *Input) { in.Manifest.Layers[0].Size-- }, "layer "},
		{"longer layer", func(t *testing.T, in *Input) { in.Manifest.Layers[0].Size++ }, "has not the size"},
		{"other content", func(t *testing.T, in *Input) {
			var conf imageConfig
			conf.RootFS.DiffIDs = []string{layout.Digest(nil), layout.Digest(nil)}
			in.setConfig(t, conf)
		}, "the configuration says"},
		{"missing content", func(t *testing.T, in *Input) { in.setConfig(t, imageConfig{}) }, "the manifest has 2 layers, the configuration 0"},
		{"other configuration", func(t *testing.T, in *Input) { in.Config = append(in.Config, ' ') }, "configuration sha256:"},
		{"not an archive", func(t *testing.T, in *Input) {
			junk := input(t, [][]byte{bytes.Repeat([]byte("junk"), 1000)}, gzipped)
			in.Layers, in.Manifest, in.Config = junk.Layers, junk.Manifest, junk.Config
		}, "read tar"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := good(t)
			tt.spoil(t, &in)
			out, err := convert(t, in)
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Convert = %v; want an error with %q", err, tt.err)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("a file was written")
			}
		})
	}
}

// TestConvertNoticesAChange changes a layer between the two readings that an odd
// image needs.
func TestConvertNoticesAChange(t *testing.T) {
	in := input(t, [][]byte{
		tarOf(t, []member{regular("a", strings.Repeat("x", 5000)), hardlink("b", "a")}),
		tarOf(t, []member{regular(".wh.a", "")}),
	})
	conf, err := readConfig(in)
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(filepath.Join(t.TempDir(), "out"), tar2sqfs, 0)
	layers := in.layers(conf)
	var odd *tree
	err = w.run(t.Context(), func(ctx context.Context) error {
		odd, err = w.readOnce(ctx, layers, limits)
		return err
	})
	if !errors.Is(err, errOdd) {
		t.Fatalf("readOnce = %v; want errOdd", err)
	}
	if _, err := in.Layers[0].WriteAt([]byte("other"), 2000); err != nil {
		t.Fatal(err)
	}
	err = w.run(t.Context(), func(ctx context.Context) error { return w.readAgain(ctx, layers, odd) })
	if err == nil || !strings.Contains(err.Error(), "is corrupt") {
		t.Errorf("readAgain = %v; want an error about a corrupt layer", err)
	}
}

// TestConvertLimits exceeds each limit. The errors name the site's setting.
func TestConvertLimits(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*config.Convert)
		members []member
		err     string
		setting string // that the hint names
	}{
		{"time", func(c *config.Convert) { c.Timeout = 1 }, []member{regular("a", "1")}, "not done after 1ns", "convert.timeout"},
		{"files", func(c *config.Convert) { c.Files = 2 }, []member{regular("a", ""), dir("b"), regular("c", "")}, "more files than the site allows", "convert.files"},
		{"data", func(c *config.Convert) { c.Unpacked = 8192 }, []member{regular("a", strings.Repeat("0", 8192))}, "more data than the site allows", "convert.unpacked"},
		{"data that upper layers hide", func(c *config.Convert) { c.Unpacked = 8192 }, []member{regular(".wh.a", strings.Repeat("0", 8192))}, "more data than the site allows", "convert.unpacked"},
		{"names", func(c *config.Convert) { c.Memory = 2 * 3 * (entryMemory + 100) }, []member{regular("a", ""), regular("b", ""), symlink("c", strings.Repeat("x", 500))}, "more names and attributes than the site allows", "convert.memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input(t, [][]byte{tarOf(t, tt.members), tarOf(t, nil)}, zstandard, gzipped)
			small := limits
			tt.change(&small)
			out := filepath.Join(t.TempDir(), "out")
			_, err := Convert(t.Context(), in, out, tar2sqfs, small)
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(fault.Hint(err), tt.setting) {
				t.Errorf("Convert = %v (hint: %s); want an error with %q and a hint with %s", err, fault.Hint(err), tt.err, tt.setting)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("a file was written")
			}
		})
	}
}

func TestConvertStops(t *testing.T) {
	in := input(t, [][]byte{tarOf(t, []member{regular("a", "1")})})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Convert(ctx, in, filepath.Join(t.TempDir(), "out"), tar2sqfs, limits); !errors.Is(err, context.Canceled) {
		t.Errorf("Convert = %v; want %v", err, context.Canceled)
	}
}

func TestConvertNoSpace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	noise := make([]byte, 1<<20)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	in := input(t, [][]byte{tarOf(t, []member{regular("a", string(noise))})})
	_, err := Convert(t.Context(), in, filepath.Join(dir, "out"), tar2sqfs, limits)
	if want := "no space left in the store " + dir; err == nil || err.Error() != want || fault.Hint(err) == "" {
		t.Errorf("Convert = %v; want %q with a hint", err, want)
	}
}

// FuzzApply builds two layers of whatever names come and checks that the tree
// that they make is one that can be written: clean names, each below a
// directory, hard links to files.
func FuzzApply(f *testing.F) {
	f.Add("a\nb/c", "a\n.wh.b\nb/.wh..wh..opq", "x", byte(0))
	f.Add("../../etc/passwd\n/abs\n./dot", "a/../../b\nc//d", "../..", byte(1))
	f.Add("l\nl/x", "l/y\nl", "l", byte(2))
	f.Add("a\x00b\n.wh.\n.wh..\n.wh...", ".wh..wh.plnk/x\n.wh.x/y", "/", byte(3))
	kinds := []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar}
	f.Fuzz(func(t *testing.T, lower, upper, target string, kind byte) {
		tree := newTree()
		for layer, names := range []string{lower, upper} {
			var entries []entry
			for i, name := range strings.Split(names, "\n") {
				hdr := &tar.Header{Typeflag: kinds[(int(kind)+i)%len(kinds)], Name: name, Linkname: target}
				if e, err := newEntry(hdr, i); err == nil {
					entries = append(entries, e)
				}
			}
			for _, e := range entries { // as far as it goes
				_ = tree.apply(layer, []entry{e})
			}
			_ = tree.apply(layer, entries)
		}
		for name, n := range tree.walk() {
			if name == "" || name != filepath.Clean(name) || strings.HasPrefix(name, "/") || strings.HasPrefix(name, "..") && (len(name) == 2 || name[2] == '/') || strings.Contains(name, "\x00") {
				t.Errorf("the tree has %q", name)
			}
			if base := filepath.Base(name); strings.HasPrefix(base, whiteout) {
				t.Errorf("the tree has the whiteout %q", name)
			}
			if n.isDir() != (n.children != nil) || n.kind == tar.TypeLink || n.kind == kindWhiteout {
				t.Errorf("%q is of kind %q, children %v", name, n.kind, n.children != nil)
			}
		}
	})
}

// FuzzRead takes two layers as they come and checks what tar2sqfs would get: the
// same image from one reading as from two, no name twice or below a file, no
// hard link to nothing.
func FuzzRead(f *testing.F) {
	for _, layers := range [][2][]member{
		{{dir("a"), regular("a/x", "1"), symlink("l", "a")}, {regular("a/.wh.x", ""), regular("l/y", "2")}},
		{{regular("a", "1"), hardlink("b", "a")}, {regular(".wh.a", ""), hardlink("c", "b")}},
		{{regular("a/x", "1")}, {dir("a"), regular("a/.wh..wh..opq", ""), regular("a/y", "2")}},
		{{regular("../a", "1"), regular("a", "2"), dir("a")}, {regular("/a/b", "3"), symlink("a", "..")}},
	} {
		f.Add(tarOf(f, layers[0]), tarOf(f, layers[1]))
	}
	small := limits
	small.Unpacked = 1 << 20
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		var layers []*layer
		for _, b := range [][]byte{lower, upper} {
			if _, err := decompress(bytes.NewReader(b)); err != nil || bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
				return // compressed ones have another digest
			}
			b = withChecksums(b)
			layers = append(layers, &layer{layout.Descriptor{Digest: layout.Digest(b), Size: int64(len(b))}, layout.Digest(b), bytes.NewReader(b)})
		}
		read := func(content func(w *writer) (*tree, error)) (map[string]string, *tree, error) {
			var out bytes.Buffer
			w := newWriter("", "", 0)
			w.tar = tar.NewWriter(&out)
			tree, err := content(w)
			if err == nil {
				err = errors.Join(w.rest(tree), w.tar.Close())
			}
			if err != nil {
				return nil, tree, err
			}
			return members(t, &out), tree, nil
		}
		once, built, err := read(func(w *writer) (*tree, error) { return w.readOnce(t.Context(), layers, small) })
		if built == nil {
			return // not an image
		}
		again, _, errAgain := read(func(w *writer) (*tree, error) {
			for _, n := range built.walk() { // as readOnce leaves it
				n.path = ""
			}
			return built, w.readAgain(t.Context(), layers, built)
		})
		if err == nil && (errAgain != nil || !maps.Equal(once, again)) {
			t.Errorf("one reading: %s\ntwo: %v%s", show(once), errAgain, show(again))
		}
	})
}

// withChecksums makes headers valid, which no fuzzer would hit upon.
func withChecksums(b []byte) []byte {
	b = bytes.Clone(b)
	for block := range slices.Chunk(b, 512) {
		if len(block) < 512 || string(block[257:262]) != "ustar" {
			continue
		}
		copy(block[148:156], "        ")
		sum := 0
		for _, c := range block {
			sum += int(c)
		}
		copy(block[148:156], fmt.Sprintf("%06o\x00", sum))
	}
	return b
}

// members describes what is in a tar file as tar2sqfs takes it.
func members(t *testing.T, r io.Reader) map[string]string {
	got := map[string]string{}
	links := map[string]string{}
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("what was written is no tar file: %v", err)
		}
		name := strings.TrimSuffix(hdr.Name, "/")
		if _, twice := got[name]; twice || links[name] != "" {
			t.Errorf("%q comes twice", name)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if hdr.Typeflag == tar.TypeLink {
			links[name] = hdr.Linkname
			continue
		}
		got[name] = fmt.Sprintf("%c %o %d:%d %s%s", hdr.Typeflag, hdr.Mode, hdr.Uid, hdr.Gid, hdr.Linkname, content)
	}
	for name, target := range links {
		if got[target] == "" || got[target][0] == tar.TypeDir {
			t.Errorf("%q is a link to %q, which is %q", name, target, got[target])
		}
	}
	for name, target := range links {
		got[name] = got[target]
	}
	for name := range got {
		if parent := filepath.Dir(name); name != "." && got[parent] != "" && got[parent][0] != tar.TypeDir {
			t.Errorf("%q is below a file", name)
		}
	}
	return got
}

// TestConvertOneOwner checks that all files are root's where nobody else exists,
// and what is kept aside is the same.
func TestConvertOneOwner(t *testing.T) {
	owned := func(h *tar.Header) { h.Uid, h.Gid = 1000, 42 }
	in := input(t, [][]byte{tarOf(t, []member{
		with(dir("."), owned), with(dir("dir"), owned), with(regular("dir/file", "x"), owned), with(symlink("link", "dir"), owned),
	})}, gzipped)
	in.OneOwner = true
	out, err := convert(t, in)
	if err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command("unsquashfs", "-lln", out).CombinedOutput()
	if err != nil {
		t.Fatalf("unsquashfs: %v\n%s", err, text)
	}
	if n := strings.Count(string(text), " 0/0 "); n != 4 || strings.Contains(string(text), "1000/") {
		t.Errorf("%d files are root's; want 4:\n%s", n, text)
	}
}
