// SPDX-License-Identifier: Apache-2.0

package load

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// files are the members of an archive, by name. A value that begins with "-> "
// is a symbolic link.
type files map[string]string

func marshal(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func digestOf(content string) string { return layout.Digest([]byte(content)) }

func config(arch string, layers ...string) string {
	var ids []string
	for _, l := range layers {
		ids = append(ids, digestOf(l))
	}
	return marshal(map[string]any{"os": "linux", "architecture": arch, "rootfs": map[string]any{"diff_ids": ids}})
}

// addBlob stores content as an OCI image layout has it and describes it.
func (f files) addBlob(content string) map[string]any {
	f[blobName(digestOf(content))] = content
	return map[string]any{"digest": digestOf(content), "size": len(content)}
}

// addImage stores an image with one layer and returns its descriptor.
func (f files) addImage(layer, arch, name string) map[string]any {
	d := f.addBlob(marshal(map[string]any{
		"schemaVersion": 2, "config": f.addBlob(config(arch, layer)), "layers": []any{f.addBlob(layer)},
	}))
	if name != "" {
		d["annotations"] = map[string]string{layout.RefName: name}
	}
	return d
}

func (f files) index(images ...map[string]any) files {
	f["index.json"] = marshal(map[string]any{"schemaVersion": 2, "manifests": images})
	return f
}

func ociImage(name string) files {
	f := files{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`}
	return f.index(f.addImage("layer", runtime.GOARCH, name))
}

func dockerImages(tags ...string) files {
	f := files{}
	var all []any
	for _, tag := range tags {
		layers := []string{"base", "layer of " + tag}
		conf := config(runtime.GOARCH, layers...)
		f[digestOf(conf)[7:]+".json"] = conf
		var names []string
		for _, l := range layers {
			names = append(names, digestOf(l)[7:]+"/layer.tar")
			f[names[len(names)-1]] = l
		}
		all = append(all, map[string]any{"Config": digestOf(conf)[7:] + ".json", "RepoTags": []string{tag}, "Layers": names})
	}
	f["manifest.json"] = marshal(all)
	return f
}

func (f files) with(name, content string) files { f[name] = content; return f }

func (f files) without(prefix string) files {
	maps.DeleteFunc(f, func(name, _ string) bool { return strings.HasPrefix(name, prefix) })
	return f
}

// tar returns the archive; its members are sorted.
func (f files) tar() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		hdr := &tar.Header{Name: "./" + name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(f[name]))}
		if target, ok := strings.CutPrefix(f[name], "-> "); ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeSymlink, target, 0
		}
		if err := w.WriteHeader(hdr); err != nil {
			panic(err)
		}
		if hdr.Size > 0 {
			io.WriteString(w, f[name])
		}
	}
	w.Close()
	return b.Bytes()
}

// sparse returns an archive that GNU tar makes of a file with a hole.
func sparse(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "index.json"), 1<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "-C", dir, "--sparse", "-cf", "-", "index.json").Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func gzipped(content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(content)
	w.Close()
	return b.Bytes()
}

func zstdCompressed(content []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(content, nil)
}

// write writes a file.
func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func parse(t *testing.T, name string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLoadArchives(t *testing.T) {
	twice := dockerImages("a:1")
	twice["x/layer.tar"] = "-> ../" + digestOf("base")[7:] + "/layer.tar"
	conf := config(runtime.GOARCH, "base", "base")
	twice["c.json"] = conf
	linked := twice.with("manifest.json", marshal([]any{map[string]any{
		"Config": "c.json", "Layers": []string{digestOf("base")[7:] + "/layer.tar", "x/layer.tar"},
	}}))

	platforms := files{}
	other, mine := platforms.addImage("other", "s390x", ""), platforms.addImage("mine", runtime.GOARCH, "")
	other["platform"] = map[string]string{"os": "linux", "architecture": "s390x"}
	mine["platform"] = map[string]string{"os": "linux", "architecture": runtime.GOARCH}
	multi := platforms.addBlob(marshal(map[string]any{"schemaVersion": 2, "manifests": []any{other, mine}}))
	platforms.index(multi)

	several := files{}
	several.index(several.addImage("one", runtime.GOARCH, "one"), several.addImage("two", runtime.GOARCH, "docker.io/library/two:latest"))

	for _, tt := range []struct {
		name    string
		content []byte
		ref     string // after the path
		want    []string
		err     string
		hint    string
	}{
		{name: "OCI", content: ociImage("v1").tar(), want: []string{"layer"}},
		{name: "OCI, gzip", content: gzipped(ociImage("v1").tar()), want: []string{"layer"}},
		{name: "OCI, zstd", content: zstdCompressed(ociImage("v1").tar()), want: []string{"layer"}},
		{name: "OCI, named", content: ociImage("v1").tar(), ref: ":v1", want: []string{"layer"}},
		{name: "OCI, one of several", content: several.tar(), ref: ":one", want: []string{"one"}},
		{name: "OCI, one of several by another spelling", content: several.tar(), ref: ":two", want: []string{"two"}},
		{name: "OCI, several platforms", content: platforms.tar(), want: []string{"mine"}},
		{name: "OCI, by digest", content: platforms.tar(), ref: "@" + multi["digest"].(string), want: []string{"mine"}},
		{name: "Docker", content: dockerImages("a:1").tar(), want: []string{"base", "layer of a:1"}},
		{name: "Docker, gzip", content: gzipped(dockerImages("a:1").tar()), want: []string{"base", "layer of a:1"}},
		{name: "Docker, one of several", content: dockerImages("a:1", "b:latest").tar(), ref: ":b", want: []string{"base", "layer of b:latest"}},
		{name: "Docker, by its whole name", content: dockerImages("a:1", "b:2").tar(), ref: ":docker.io/library/a:1", want: []string{"base", "layer of a:1"}},
		{name: "Docker, a layer twice", content: linked.tar(), want: []string{"base", "base"}},

		{name: "empty", content: nil, err: "the archive has no image", hint: "docker save"},
		{name: "not an archive", content: []byte(strings.Repeat("text ", 200)), err: "the file is not a tar archive", hint: "docker save"},
		{name: "another archive", content: files{"a.txt": "x"}.tar(), err: "the archive has no image", hint: "index.json"},
		{name: "xz", content: []byte("\xfd7zXZ\x00 and so on"), err: "compressed with xz or bzip2", hint: "decompress it"},
		{name: "truncated", content: ociImage("v1").tar()[:1700], err: "the file ends in the middle"},
		{name: "truncated, gzip", content: gzipped(ociImage("v1").tar())[:200], err: "the file ends in the middle"},
		{name: "no such name", content: ociImage("v1").tar(), ref: ":v2", err: `there is no image "v2" in it; there is v1`},
		{name: "no such digest", content: ociImage("v1").tar(), ref: "@" + digestOf("x"), err: "there is no image " + digestOf("x"), hint: "submit the job again"},
		{name: "Docker, no such digest", content: dockerImages("a:1").tar(), ref: "@" + digestOf("x"), err: "there is no image " + digestOf("x"), hint: "submit the job again"},
		{name: "several", content: several.tar(), err: "there are several images in it: docker.io/library/two:latest, one", hint: "say which: oci-archive:"},
		{name: "Docker, several", content: dockerImages("a:1", "b:2").tar(), err: "there are several images in it: a:1, b:2", hint: ":NAME"},
		{name: "no index entry", content: files{}.index().tar(), err: "there is no image in it"},
		{name: "missing layer", content: ociImage("v1").without(blobName(digestOf("layer"))).tar(), err: blobName(digestOf("layer")) + ": it is missing"},
		{name: "missing manifest", content: ociImage("v1").without("blobs").tar(), err: "it is missing"},
		{name: "wrong layer", content: ociImage("v1").with(blobName(digestOf("layer")), "LAYER").tar(), err: "is corrupt: its content has digest " + digestOf("LAYER")},
		{name: "long layer", content: ociImage("v1").with(blobName(digestOf("layer")), "layer and more").tar(), err: "is corrupt"},
		{name: "wrong configuration", content: ociImage("v1").with(blobName(digestOf(config(runtime.GOARCH, "layer"))), "{}").tar(), err: "is corrupt"},
		{name: "another machine's", content: func() []byte { f := files{}; return f.index(f.addImage("x", "s390x", "")).tar() }(), err: "no image for this platform, linux/" + runtime.GOARCH + "; there is linux/s390x"},
		{name: "index without JSON", content: files{"index.json": "{"}.tar(), err: "read index.json"},
		{name: "index with another digest", content: files{"index.json": `{"manifests":[{"digest":"sha512:x"}]}`}.tar(), err: `digest "sha512:x": want a sha256 digest`},
		{name: "Docker, missing layer", content: dockerImages("a:1").without(digestOf("base")[7:]).tar(), err: "/layer.tar: it is missing"},
		{name: "Docker, wrong layer", content: dockerImages("a:1").with(digestOf("base")[7:]+"/layer.tar", "BASE").tar(), err: "is corrupt: its content has digest " + digestOf("BASE")},
		{name: "Docker, missing configuration", content: files{"manifest.json": `[{"Config":"c"}]`}.tar(), err: "configuration: c: it is missing"},
		{name: "Docker, other number of layers", content: files{"c": config(runtime.GOARCH, "x"), "manifest.json": `[{"Config":"c"}]`}.tar(), err: "manifest.json lists 0 layers, the configuration 1"},
		{name: "sparse files", content: sparse(t), err: "the archive has sparse files", hint: "--sparse"},
		{name: "links in a circle", content: files{"index.json": "-> manifest.json", "manifest.json": "-> index.json"}.tar(), err: "the archive has no image"},
		{name: "link that leads out", content: files{"index.json": "-> ../../etc/passwd"}.tar(), err: "the archive has no image"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{Ref: parse(t, "oci-archive:"+write(t, tt.content)+tt.ref), Layout: t.TempDir()}
			res, err := Load(t.Context(), o)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(fault.Hint(err), tt.hint) {
					t.Fatalf("Load = %v (hint %q); want an error with %q (hint with %q)", err, fault.Hint(err), tt.err, tt.hint)
				}
				if index, err := (layout.Open(o.Layout)); err == nil {
					if x, err := index.Index(); err == nil && len(x.Manifests) > 0 {
						t.Errorf("the cache names %v", x.Manifests)
					}
				}
				return
			}
			if err != nil {
				t.Fatalf("Load = %v (hint %q)", err, fault.Hint(err))
			}
			expectLayers(t, o, res, tt.want)
		})
	}
}

// expectLayers checks that the cache has the image under its name.
func expectLayers(t *testing.T, o Options, res Result, want []string) {
	t.Helper()
	l, err := layout.Open(o.Layout)
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := l.Resolve(o.Ref); err != nil || digest != res.Digest {
		t.Errorf("Resolve(%s) = %s, %v; want %s", o.Ref, digest, err, res.Digest)
	}
	m, err := l.Manifest(res.Digest, layout.Host())
	if err != nil || m.Digest != res.Manifest {
		t.Fatalf("Manifest = %s, %v; want %s", m.Digest, err, res.Manifest)
	}
	var got []string
	for _, d := range m.Layers {
		content, err := l.ReadBlob(d.Digest, d.Size)
		if err != nil {
			t.Error(err)
		}
		got = append(got, string(content))
	}
	if !slices.Equal(got, want) || !l.Complete(m) {
		t.Errorf("layers = %q; want %q, and a complete image", got, want)
	}
	left, err := filepath.Glob(filepath.Join(o.Layout, "blobs", "sha256", ".tmp-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %q, %v", left, err)
	}
}

// TestSameImageSameDigest checks that compression of a Docker archive, the order
// in it and the name do not matter.
func TestSameImageSameDigest(t *testing.T) {
	plain := dockerImages("a:1").tar()
	both := dockerImages("a:1", "b:2").tar()
	digests := map[string]bool{}
	for _, at := range []string{write(t, plain), write(t, gzipped(plain)), write(t, zstdCompressed(plain)), write(t, both) + ":a:1"} {
		res, err := Load(t.Context(), Options{Ref: parse(t, "docker-archive:"+at), Layout: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		digests[res.Digest] = true
	}
	if len(digests) != 1 {
		t.Errorf("digests = %v; want one", digests)
	}
}

// TestUnchangedFileIsNotReadAgain checks that a file is known again, and that a
// change of it is noticed, also one that keeps its size and its time.
func TestUnchangedFileIsNotReadAgain(t *testing.T) {
	path := write(t, dockerImages("a:1").tar())
	o := Options{Ref: parse(t, "docker-archive:"+path), Layout: t.TempDir()}
	settle(t, path)
	first, err := Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	reads := watch(t, path)
	if again, err := Load(t.Context(), o); err != nil || again != first {
		t.Errorf("Load = %v, %v; want %v", again, err, first)
	}
	if reads() {
		t.Error("the file was read again")
	}

	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, dockerImages("b:1").tar(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if now, _ := os.Stat(path); now.Size() != st.Size() || !now.ModTime().Equal(st.ModTime()) {
		t.Fatal("this test does not keep size and time")
	}
	changed, err := Load(t.Context(), o)
	if !reads() {
		t.Error("the changed file was not read")
	}
	if err != nil || changed == first {
		t.Errorf("Load after a change = %v, %v; want another image", changed, err)
	}
	expectLayers(t, o, changed, []string{"base", "layer of b:1"})

	// What was submitted is in the cache, and is not looked for in the file.
	o.Ref.Digest = first.Digest
	if got, err := Load(t.Context(), o); err != nil || got != first {
		t.Errorf("Load of %s = %v, %v; want %v", o.Ref, got, err, first)
	}
	// Without that cache there is no way back.
	o.Layout = t.TempDir()
	if got, err := Load(t.Context(), o); err == nil {
		t.Errorf("Load of %s = %v; want an error", o.Ref, got)
	}
}

// settle waits until the file's times say that nobody writes to it.
func settle(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for stamp := ""; stamp == ""; time.Sleep(100 * time.Millisecond) {
		if stamp, err = userfile.Stamp(f); err != nil {
			t.Fatal(err)
		}
	}
}

// watch returns a function that says whether the file was read since.
func watch(t *testing.T, path string) func() bool {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, path, unix.IN_ACCESS)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func() bool {
		n, _ := unix.Read(fd, make([]byte, 4096))
		return n > 0
	}
}

func TestLoadDirectory(t *testing.T) {
	dir := t.TempDir()
	for name, content := range ociImage("v1") {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Ref: parse(t, "oci:"+dir+":v1"), Layout: t.TempDir()}
	res, err := Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	expectLayers(t, o, res, []string{"layer"})

	o.Ref.Path = filepath.Join(dir, "blobs")
	if _, err := Load(t.Context(), o); err == nil || !strings.Contains(err.Error(), "it has no index.json") {
		t.Errorf("Load of a directory that is no layout = %v", err)
	}
	o.Ref.Path = filepath.Join(dir, "nope")
	if _, err := Load(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("Load of a directory that is not there = %v", err)
	}
}

// TestLayersOfStoredImagesAreNotCopied: the store has the image in another form.
func TestLayersOfStoredImagesAreNotCopied(t *testing.T) {
	o := Options{Ref: parse(t, "oci-archive:"+write(t, ociImage("v1").tar())), Layout: t.TempDir()}
	o.Have = func(string) bool { return true }
	if _, err := Load(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(o.Layout, blobName(digestOf("layer")))); err == nil {
		t.Error("the layer was copied")
	}
	o.Have = nil // the store has lost it
	res, err := Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	expectLayers(t, o, res, []string{"layer"})
}

func TestLoadSquashfs(t *testing.T) {
	path := write(t, []byte("hsqs and so on"))
	o := Options{Ref: parse(t, path), Layout: t.TempDir()}
	res, err := Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	expectLayers(t, o, res, []string{"hsqs and so on"})
	copied := Options{Ref: parse(t, write(t, []byte("hsqs and so on"))), Layout: t.TempDir()}
	if same, err := Load(t.Context(), copied); err != nil || same != res {
		t.Errorf("Load of a copy = %v, %v; want %v", same, err, res)
	}
}

// FuzzArchive checks that no archive makes Load do anything but load or refuse.
func FuzzArchive(f *testing.F) {
	for _, content := range [][]byte{
		ociImage("v1").tar(), dockerImages("a:1").tar(), gzipped(dockerImages("a:1").tar()), zstdCompressed(files{}.tar()),
		files{"manifest.json": "-> x", "x": `[{"Config":"x","Layers":["x"]}]`}.tar(),
		files{"index.json": `{"manifests":[{"digest":"` + digestOf("{}") + `"}]}`, blobName(digestOf("{}")): "{}"}.tar(),
	} {
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		o := Options{Ref: parse(t, "docker-archive:"+write(t, content)), Layout: t.TempDir()}
		res, err := Load(t.Context(), o)
		if err != nil {
			return
		}
		l, err := layout.Open(o.Layout)
		if err != nil {
			t.Fatal(err)
		}
		m, err := l.Manifest(res.Digest, layout.Host())
		if err != nil || !l.Complete(m) {
			t.Errorf("Load = %v, but the cache has %v, %v", res, m, err)
		}
		for _, d := range m.Blobs() {
			if _, err := l.ReadBlob(d.Digest, d.Size); err != nil {
				t.Error(err)
			}
		}
	})
}
