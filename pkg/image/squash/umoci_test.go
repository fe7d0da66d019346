// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// TestConvertLikeUmoci unpacks images with umoci and ours with unsquashfs, and
// compares all that can be seen of each file. What differs on purpose is said.
func TestConvertLikeUmoci(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to unpack owners and attributes")
	}
	for _, program := range []string{"umoci", "unsquashfs", tar2sqfs} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs " + program)
		}
	}
	attr := func(name, value string) func(*tar.Header) {
		return func(h *tar.Header) { h.PAXRecords = map[string]string{xattrTag + name: value} }
	}
	owner := func(uid, gid int) func(*tar.Header) { return func(h *tar.Header) { h.Uid, h.Gid = uid, gid } }
	device := member{tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
	var many []member
	for i := range 2000 {
		many = append(many, regular(fmt.Sprintf("many/%d/%d", i%40, i), strings.Repeat("x", i)))
	}
	for _, tt := range []struct {
		name   string
		layers [][]member
		// differ changes what umoci has into what we have.
		differ func(umoci map[string]string)
	}{
		{name: "one layer", layers: [][]member{{dir("etc"), regular("etc/passwd", "root"), symlink("etc/link", "passwd"), regular("empty", "")}}},
		{name: "many files", layers: [][]member{many, many[500:700]}},
		{name: "whiteouts", layers: [][]member{
			{dir("a"), regular("a/x", "1"), regular("a/y", "2"), dir("b"), regular("b/z", "3"), symlink("l", "a")},
			{regular("a/.wh.x", ""), regular(".wh.b", ""), regular(".wh.l", "")},
		}},
		{name: "hidden and back", layers: [][]member{{regular("a", "1"), dir("d"), regular("d/x", "1")}, {regular(".wh.a", ""), regular(".wh.d", "")}, {regular("a", "3"), dir("d"), regular("d/y", "1")}}},
		{name: "opaque directory", layers: [][]member{
			{dir("a"), regular("a/x", "1"), dir("a/b"), regular("a/b/y", "2"), regular("c", "3")},
			{dir("a"), regular("a/.wh..wh..opq", ""), regular("a/z", "3")},
		}},
		{name: "opaque directory, said last", layers: [][]member{
			{dir("a"), regular("a/x", "1")},
			{dir("a"), regular("a/z", "3"), dir("a/b"), regular("a/b/w", "4"), regular("a/.wh..wh..opq", "")},
		}},
		{name: "opaque twice", layers: [][]member{
			{dir("a"), regular("a/x", "1")},
			{dir("a"), regular("a/y", "2"), regular("a/.wh..wh..opq", "")},
			{dir("a"), regular("a/z", "3"), regular("a/.wh..wh..opq", "")},
		}},
		{name: "kinds change", layers: [][]member{
			{regular("f2d", "1"), dir("d2f"), regular("d2f/x", "1"), dir("d2l"), regular("d2l/x", "1"), symlink("l2f", "f2d"), symlink("l2d", "d2f")},
			{dir("f2d"), regular("f2d/y", "2"), regular("d2f", "2"), symlink("d2l", "f2d"), regular("l2f", "2"), dir("l2d"), regular("l2d/y", "2")},
		}},
		{name: "hard links", layers: [][]member{{regular("a", "1"), hardlink("b", "a"), hardlink("c", "b"), dir("d"), hardlink("d/e", "a"), symlink("s", "a"), hardlink("t", "s")}}},
		{name: "hard link into a lower layer", layers: [][]member{{dir("d"), regular("d/a", "1")}, {hardlink("b", "d/a")}}},
		{name: "hard link to what is hidden later", layers: [][]member{{regular("a", "1"), hardlink("b", "a"), hardlink("c", "a")}, {regular(".wh.a", "")}}},
		{name: "hard link to what is replaced later", layers: [][]member{{regular("a", "1"), hardlink("b", "a")}, {regular("a", "2")}}},
		{name: "modes and owners", layers: [][]member{
			{with(dir("."), mode(0o710)), with(regular("suid", "x"), mode(0o4755)), with(dir("tmp"), mode(0o1777)), with(dir("sgid"), mode(0o2755)), with(regular("none", "x"), mode(0)), with(regular("owned", "x"), owner(1000, 2_000_000_000)), with(symlink("link", "x"), owner(5, 6))},
			{with(dir("tmp"), mode(0o700))},
		}},
		{
			name: "attributes",
			layers: [][]member{{
				with(regular("user", "x"), attr("user.a", "b\x00c")), with(dir("dir"), attr("user.d", "e")),
				with(regular("cap", "x"), attr("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")),
				with(regular("trusted", "x"), attr("trusted.overlay.redirect", "/etc")),
			}},
			// They grant privilege, or mean something to the host.
			differ: func(umoci map[string]string) {
				for name, what := range umoci {
					what, _, _ = strings.Cut(what, " security.")
					umoci[name], _, _ = strings.Cut(what, " trusted.")
				}
			},
		},
		{name: "odd names", layers: [][]member{{
			regular(strings.Repeat("n", 255), "1"), regular(strings.Repeat("long-directory-name/", 60)+"x", "2"),
			regular("new\nline", "3"), regular("caf\xe9", "4"), regular("\xff\xfe", "5"), regular(" ", "6"), regular("-x", "7"), regular("back\\slash", "8"), regular("tab\there", "9"), regular("...", "10"), regular("*", "11"),
		}}},
		{name: "names that lead out", layers: [][]member{{regular("../../a", "1"), regular("/b", "2"), regular("c/../../d", "3"), regular("./e//f", "4"), hardlink("g", "../../a")}}},
		{name: "links that lead out", layers: [][]member{{symlink("up", "../../../.."), symlink("abs", "/etc"), dir("etc"), regular("abs/x", "1"), regular("up/y", "2")}}},
		{name: "parents that no layer describes", layers: [][]member{{regular("a/b/c", "1")}}},
		{name: "described twice", layers: [][]member{{regular("a", "1"), regular("a", "22"), dir("d"), regular("d/x", "1"), with(dir("d"), mode(0o700))}}},
		{
			name:   "FIFOs and devices",
			layers: [][]member{{{tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600}, ""}, dir("dev"), device}},
			// Those of the host are shown, as the site has it.
			differ: func(umoci map[string]string) { delete(umoci, "dev/null") },
		},
		{
			name:   "device in place of a file",
			layers: [][]member{{dir("dev"), regular("dev/null", "1")}, {device}},
			differ: func(umoci map[string]string) { delete(umoci, "dev/null") },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var tars [][]byte
			for _, members := range tt.layers {
				tars = append(tars, tarOf(t, members))
			}
			in := input(t, tars, gzipped)
			out, err := convert(t, in)
			if err != nil {
				t.Fatal(err)
			}
			work := t.TempDir()
			ours := filepath.Join(work, "ours")
			if text, err := exec.Command("unsquashfs", "-no-progress", "-d", ours, out).CombinedOutput(); err != nil {
				t.Fatalf("unsquashfs: %v\n%s", err, text)
			}
			saveLayout(t, in, filepath.Join(work, "oci"))
			if text, err := exec.Command("umoci", "unpack", "--image", filepath.Join(work, "oci")+":x", filepath.Join(work, "theirs")).CombinedOutput(); err != nil {
				t.Fatalf("umoci: %v\n%s", err, text)
			}
			got, want := inspect(t, ours), inspect(t, filepath.Join(work, "theirs", "rootfs"))
			if tt.differ != nil {
				tt.differ(want)
			}
			if !maps.Equal(got, want) {
				t.Errorf("ours:%s\numoci:%s", show(got), show(want))
			}
		})
	}
}

// saveLayout writes the image as an OCI layout, with the tag x.
func saveLayout(t *testing.T, in Input, dir string) {
	t.Helper()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(content []byte) map[string]any {
		digest := layout.Digest(content)
		if err := os.WriteFile(filepath.Join(blobs, strings.TrimPrefix(digest, "sha256:")), content, 0o600); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"digest": digest, "size": len(content)}
	}
	as := func(d map[string]any, mediaType string) map[string]any {
		d["mediaType"] = "application/vnd.oci.image." + mediaType
		return d
	}
	marshal := func(v any) []byte {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var layers []any
	for _, f := range in.Layers {
		content, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, as(put(content), "layer.v1.tar+gzip"))
	}
	var conf map[string]any
	if err := json.Unmarshal(in.Config, &conf); err != nil {
		t.Fatal(err)
	}
	conf["rootfs"].(map[string]any)["type"] = "layers"
	conf["created"], conf["os"], conf["architecture"] = "2020-01-01T00:00:00Z", "linux", "amd64"
	manifest := as(put(marshal(map[string]any{
		"schemaVersion": 2, "config": as(put(marshal(conf)), "config.v1+json"), "layers": layers,
	})), "manifest.v1+json")
	manifest["annotations"] = map[string]string{layout.RefName: "x"}
	err1 := os.WriteFile(filepath.Join(dir, "index.json"), marshal(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}), 0o600)
	err2 := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion": "1.0.0"}`), 0o600)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
}

// inspect describes every file below root: kind, mode, owner, time, which names
// are the same file and how many there are, content, attributes.
func inspect(t *testing.T, root string) map[string]string {
	t.Helper()
	got := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		what := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		if !info.IsDir() { // where each layer is unpacked, directories change
			what += fmt.Sprintf(" %d links=%d", info.ModTime().Unix(), st.Nlink)
			if was, ok := first[st.Ino]; ok {
				what += " same as " + was
			}
			first[st.Ino] = name
		}
		switch info.Mode().Type() {
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += " -> " + target
		case 0:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %d:%x", len(content), sha256.Sum256(content))
		}
		got[name] = what + attributesOf(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func attributesOf(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	for _, name := range names {
		value := bytes.Clone(buf)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, " %s=%q", name, value[:n])
	}
	return all.String()
}
