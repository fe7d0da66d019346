// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

var hostile = strings.Repeat("0", 64)

func newLayout(t *testing.T) *Layout {
	t.Helper()
	l, err := Create(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// put stores an image of one layer and gives it a name.
func put(t *testing.T, l *Layout, name, layer string) Manifest {
	t.Helper()
	blob := func(content string) Descriptor {
		digest, err := l.PutBlob([]byte(content))
		if err != nil {
			t.Fatal(err)
		}
		return Descriptor{Digest: digest, Size: int64(len(content))}
	}
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": TypeManifest, "config": blob("{}"), "layers": []Descriptor{blob(layer)},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := blob(string(raw))
	d.Annotations = map[string]string{RefName: name}
	if err := l.Update(t.Context(), func(x *Index) { x.Set(name, d) }); err != nil {
		t.Fatal(err)
	}
	m, err := l.Manifest(d.Digest, Host())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestResolve(t *testing.T) {
	l := newLayout(t)
	r := ref.Ref{Registry: "a.example", Repository: "b", Tag: "1"}
	if _, err := l.Resolve(r); !errors.Is(err, ErrNotFound) {
		t.Errorf("Resolve in an empty layout = %v; want %v", err, ErrNotFound)
	}
	m := put(t, l, r.String(), "layer")
	if got, err := l.Resolve(r); err != nil || got != m.Digest || !l.Complete(m) {
		t.Errorf("Resolve = %q, %v, complete %v; want %q", got, err, l.Complete(m), m.Digest)
	}
	pinned := r
	pinned.Digest = m.Digest
	if got, err := l.Resolve(pinned); err != nil || got != m.Digest {
		t.Errorf("Resolve of a digest = %q, %v; want %q", got, err, m.Digest)
	}
	pinned.Digest = "sha256:" + hostile
	if _, err := l.Resolve(pinned); !errors.Is(err, ErrNotFound) {
		t.Errorf("Resolve of an unknown digest = %v; want %v", err, ErrNotFound)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open of nothing = %v; want %v", err, ErrNotFound)
	}
}

// TestResolveIndexes looks names up in what a user may have put in place of an index.
func TestResolveIndexes(t *testing.T) {
	r := ref.Ref{Registry: "a.example", Repository: "b", Tag: "1"}
	digest := "sha256:" + hostile
	named := `{"digest":"` + digest + `","size":1,"annotations":{"` + RefName + `":"` + r.String() + `"}}`
	large := strings.Repeat(" ", 2*maxDescriptor)
	for _, tt := range []struct {
		in  string
		err string // substring of the error; empty means that the name is found
	}{
		{in: `{"schemaVersion":2,"manifests":[{},` + named + `]}`},
		{in: `{"other":{"manifests":[{}]},"list":[[1],null],"Manifests":[` + named + `],"more":1}`},

		{in: `{"manifests":[` + large[:maxDescriptor/2] + "{}" + large[:maxDescriptor/2] + `,` + named + `]}`},
		{in: `{"manifests":[{"digest":"` + large + `"},` + named + `]}`, err: "index.json: a descriptor is too large: the limit is 64 KiB"},
		{in: `{"other":"` + large + `","manifests":[` + named + `]}`, err: "index.json: a descriptor is too large: the limit is 64 KiB"},
		{in: `{"manifests":[` + strings.Repeat(large[:maxDescriptor/2]+"{},", maxIndex/maxDescriptor*2) + named + `]}`, err: "index.json: it is too large: the limit is 16 MiB"},

		{in: `{}`, err: ErrNotFound.Error()},
		{in: `{"manifests":[]}`, err: ErrNotFound.Error()},
		{in: `{"manifests":[null]}`, err: ErrNotFound.Error()},
		{in: `{"manifests":{}}`, err: "{ in place of ["},
		{in: `{"manifests":["x"]}`, err: "cannot unmarshal string"},
		{in: `[]`, err: "[ in place of {"},
		{in: ``, err: "EOF"},
		{in: `{"manifests":[{}`, err: "EOF"},
		{in: `{"manifests":[` + strings.Replace(named, digest, "../x", 1) + `]}`, err: "has no digest for it"},
	} {
		t.Run(tt.in[:min(len(tt.in), 80)], func(t *testing.T) {
			l := newLayout(t)
			if err := os.WriteFile(l.path("index.json"), []byte(tt.in), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := l.Resolve(r)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("Resolve = %q, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || got != digest {
				t.Fatalf("Resolve = %q, %v; want %q", got, err, digest)
			}
		})
	}
}

// annotations returns as many short annotations as a text of that size has.
func annotations(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size-8; i++ {
		fmt.Fprintf(&b, `,"%s":""`, strconv.FormatInt(int64(i), 36))
	}
	return "{" + b.String()[1:] + "}"
}

// heapGrowth returns by how much f makes the heap grow.
func heapGrowth(f func()) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.HeapSys) - int64(before.HeapSys)
}

// TestResolveTakesLittleMemory gives it the most descriptors, or annotations, that an index
// can have: root resolves names for users.
func TestResolveTakesLittleMemory(t *testing.T) {
	const start, end = `{"manifests":[{}`, `]}`
	for name, text := range map[string]string{
		"descriptors":        start + strings.Repeat(",{}", (maxIndex-len(start)-len(end))/3) + end,
		"annotations":        start + strings.Repeat(`,{"annotations":`+annotations(maxDescriptor-64)+`}`, maxIndex/maxDescriptor-1) + end,
		"annotations of one": start + `,{"annotations":` + annotations(maxIndex-64) + `}` + end,
	} {
		l := newLayout(t)
		if err := os.WriteFile(l.path("index.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var err error
		grown := heapGrowth(func() { _, err = l.Resolve(ref.Ref{Registry: "a.example", Repository: "b", Tag: "1"}) })
		if !errors.Is(err, ErrNotFound) && !errors.Is(err, budget.ErrLarge) || grown > 16<<20 {
			t.Errorf("%s: Resolve = %v, and the heap has grown by %d MiB", name, err, grown>>20)
		}
	}
}

// TestParseTakesLittleMemory gives it as many descriptors and annotations as a manifest
// has room for.
func TestParseTakesLittleMemory(t *testing.T) {
	const start, end = `{"schemaVersion":2,"manifests":[{}`, `]}`
	for name, text := range map[string]string{
		"annotations of the configuration": `{"schemaVersion":2,"config":{"annotations":` + annotations(MaxManifest-64) + `}}`,
		"annotations of one":               start + `,{"annotations":` + annotations(MaxManifest-64) + `}` + end,
		"annotations":                      start + strings.Repeat(`,{"annotations":{"a":"","b":"","c":"","d":""}}`, MaxManifest/48) + end,
		"platforms":                        start + strings.Repeat(`,{"platform":{}}`, MaxManifest/20) + end,
	} {
		var err error
		grown := heapGrowth(func() { _, _, err = Parse([]byte(text)) })
		if err == nil || grown > 16<<20 {
			t.Errorf("%s: Parse = %v, and the heap has grown by %d MiB; want an error", name, err, grown>>20)
		}
	}
}

// TestSelectSaysLittle checks that an index cannot make an error as long as itself.
func TestSelectSaysLittle(t *testing.T) {
	x := &Index{}
	for i := range maxListed {
		x.Manifests = append(x.Manifests, Descriptor{Platform: &Platform{OS: strings.Repeat("x", i%50), Architecture: strings.Repeat("y", 300)}})
	}
	if _, err := x.Select(Host()); !errors.Is(err, ErrPlatform) || len(err.Error()) > 2000 || !strings.HasSuffix(err.Error(), ", ...") {
		t.Errorf("Select = %v; want a short error", err)
	}
}

// TestBlobRefuses puts in place of a blob what a user may have put there.
func TestBlobRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(path string) error
		err  string
	}{
		{"link", func(p string) error { return os.Symlink("/etc/passwd", p) }, "too many levels"},
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o600) }, "not a regular file"},
		{"directory", func(p string) error { return os.Mkdir(p, 0o700) }, "not a regular file"},
		{"other content", func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) }, "the content has digest"},
		{"large", func(p string) error { return os.WriteFile(p, make([]byte, 101), 0o600) }, "too large: the limit is 100 bytes"},
		{"nothing", func(string) error { return nil }, ErrNotFound.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLayout(t)
			if err := tt.make(l.path("blobs", "sha256", hostile)); err != nil {
				t.Fatal(err)
			}
			done := time.AfterFunc(5*time.Second, func() { panic("ReadBlob waits") })
			defer done.Stop()
			if _, err := l.ReadBlob("sha256:"+hostile, 100); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("ReadBlob = %v; want an error with %q", err, tt.err)
			}
		})
	}
}

func TestParse(t *testing.T) {
	const d = `{"digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1}`
	for _, tt := range []struct {
		in    string
		index bool
		err   string // substring of the error; empty means success
	}{
		{in: `{"schemaVersion":2,"mediaType":"` + TypeManifest + `","config":` + d + `,"layers":[` + d + `]}`},
		{in: `{"schemaVersion":2,"mediaType":"` + TypeDockerManifest + `","config":` + d + `}`},
		{in: `{"schemaVersion":2,"config":` + d + `}`},
		{in: `{"schemaVersion":2,"mediaType":"` + TypeIndex + `","manifests":[` + d + `]}`, index: true},
		{in: `{"schemaVersion":2,"mediaType":"` + TypeDockerIndex + `","manifests":[]}`, index: true},
		{in: `{"schemaVersion":2,"manifests":[]}`, index: true},

		{in: `{"schemaVersion":2,"config":` + d + `,"layers":[` + layer("application/vnd.oci.image.layer.v1.tar+zstd") + `]}`},
		{in: `{"schemaVersion":2,"config":` + d + `,"layers":[` + layer("application/vnd.oci.image.layer.v1.tar") + `]}`},
		{in: `{"schemaVersion":2,"config":` + d + `,"layers":[` + layer("application/vnd.docker.image.rootfs.diff.tar.gzip") + `]}`},

		{in: `x`, err: "not a manifest"},
		{in: `{"schemaVersion":2,"config":` + d + `,"layers":[` + d + strings.Repeat(","+d, 1000) + `]}`, err: "1001 layers, more than 1000"},
		{in: `{"schemaVersion":2,"manifests":[{}` + strings.Repeat(",{}", 10000) + `]}`, err: "a list of more than 10000"},
		{in: `{"schemaVersion":2,"config":` + d + `,"layers":[` + layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip") + `]}`, err: "layer sha256:" + hostile + " is foreign"},
		{in: `{"schemaVersion":2,"config":` + d + `,"layers":[` + layer("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip") + `]}`, err: "layer sha256:" + hostile + " is foreign"},
		{in: `{"schemaVersion":2,"config":` + d + `,"layers":[` + layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted") + `]}`, err: "is encrypted"},
		{in: `{"schemaVersion":2,"config":` + d + `,"layers":[` + layer("application/vnd.cncf.helm.chart.content.v1.tar+gzip") + `]}`, err: "not a container image"},
		{in: `{}`, err: "not an image manifest"},
		{in: `{"schemaVersion":1}`, err: "schema 1 is not supported"},
		{in: `{"schemaVersion":2,"mediaType":"text/html","config":` + d + `}`, err: `media type "text/html"`},
		{in: `{"schemaVersion":2,"mediaType":"` + TypeManifest + `"}`, err: "no configuration"},
		{in: `{"schemaVersion":2,"config":` + d + `,"manifests":[]}`, err: "both a manifest and an index"},
		{in: `{"schemaVersion":2,"config":{"digest":"sha256:../x","size":1}}`, err: "want a sha256 digest"},
		{in: `{"schemaVersion":2,"config":{"digest":"sha256:` + hostile + `","size":-1}}`, err: "size -1"},
		{in: `{"schemaVersion":2,"config":{"digest":"sha256:` + hostile + `","size":99999999}}`, err: "the configuration is too large"},
	} {
		t.Run(tt.in[:min(len(tt.in), 200)], func(t *testing.T) {
			_, index, err := Parse([]byte(tt.in))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("Parse = %v; want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil || (index != nil) != tt.index {
				t.Fatalf("Parse = index %v, %v; want index %v", index != nil, err, tt.index)
			}
		})
	}
}

func layer(mediaType string) string {
	return `{"mediaType":"` + mediaType + `","digest":"sha256:` + hostile + `","size":1}`
}

// FuzzParse looks for manifests and indexes that make Parse or Select panic, or
// that let something through that is no digest.
func FuzzParse(f *testing.F) {
	const d = `{"digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":1}`
	for _, seed := range []string{
		`{"schemaVersion":2,"mediaType":"` + TypeManifest + `","config":` + d + `,"layers":[` + d + `,` + layer("application/vnd.oci.image.layer.v1.tar+zstd") + `]}`,
		`{"schemaVersion":2,"mediaType":"` + TypeDockerManifest + `","config":` + d + `}`,
		`{"schemaVersion":2,"mediaType":"` + TypeIndex + `","manifests":[{"digest":"sha256:` + hostile + `","size":7,"platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}`,
		`{"schemaVersion":2,"manifests":[{"platform":{"os":"linux","architecture":"amd64"}}, null]}`,
		`{"schemaVersion":2,"config":null,"layers":[null]}`,
		`{"schemaVersion":1}`, `[]`, `null`, `{"schemaVersion":2,"manifests":[` + d + `],"layers":[]}`,
		`{"schemaVersion":2,"config":{"digest":"sha256:../../../etc/passwd","size":-9223372036854775808}}`,
		`{"schemaVersion":2,"config":{"annotations":` + annotations(1000) + `},"layers":[{"annotations":` + annotations(1000) + `}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, index, err := Parse(raw)
		if err != nil {
			return
		}
		if index != nil {
			for _, p := range []Platform{Host(), {OS: "linux", Architecture: "arm", Variant: "v7"}} {
				if d, err := index.Select(p); err == nil && (!ref.IsDigest(d.Digest) || d.Size < 0) {
					t.Errorf("Select = %+v", d)
				}
			}
			return
		}
		for _, d := range m.Blobs() {
			if !ref.IsDigest(d.Digest) || d.Size < 0 {
				t.Errorf("Parse lets %+v through", d)
			}
		}
	})
}

func TestParsePlatform(t *testing.T) {
	for _, tt := range []struct {
		in, want string // empty is an error
	}{
		{"linux/amd64", "linux/amd64"},
		{"arm64", "linux/arm64"},
		{"linux/arm/v7", "linux/arm/v7"},
		{"x86_64", "linux/amd64"},
		{"linux/aarch64", "linux/arm64"},

		{"", ""},
		{"linux/", ""},
		{"linux/arm/v7/x", ""},
		{"linux/ARM", ""},
		{"linux/a b", ""},
	} {
		got, err := ParsePlatform(tt.in)
		if (err == nil) != (tt.want != "") || (err == nil && got.String() != tt.want) {
			t.Errorf("ParsePlatform(%q) = %s, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestSelect(t *testing.T) {
	index := func(platforms ...Platform) *Index {
		x := &Index{}
		for i, p := range platforms {
			digest := "sha256:" + strings.Repeat(string("0123456789"[i]), 64)
			x.Manifests = append(x.Manifests, Descriptor{Digest: digest, Platform: &p})
		}
		return x
	}
	amd64, arm64 := Platform{OS: "linux", Architecture: "amd64"}, Platform{OS: "linux", Architecture: "arm64"}
	v := func(p Platform, variant string) Platform { p.Variant = variant; return p }
	unknown := Platform{OS: "unknown", Architecture: "unknown"}
	for _, tt := range []struct {
		name  string
		index *Index
		p     Platform
		want  int // which one; -1 is an error
	}{
		{"by architecture", index(arm64, amd64), amd64, 1},
		{"not for later processors", index(v(amd64, "v3"), amd64), amd64, 1},
		{"variant that is the default", index(amd64, v(arm64, "v8")), arm64, 1},
		{"best variant", index(Platform{"linux", "arm", "v6"}, Platform{"linux", "arm", "v7"}), Platform{OS: "linux", Architecture: "arm"}, 1},
		{"beside an attestation", index(unknown, amd64), amd64, 1},
		{"another system", index(Platform{OS: "windows", Architecture: "amd64"}, arm64, unknown), amd64, -1},
		{"nothing", index(), amd64, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.index.Select(tt.p)
			if tt.want < 0 {
				if !errors.Is(err, ErrPlatform) || strings.Contains(err.Error(), "unknown") {
					t.Errorf("Select = %+v, %v; want %v", got, err, ErrPlatform)
				}
				return
			}
			if err != nil || got.Digest != tt.index.Manifests[tt.want].Digest {
				t.Errorf("Select = %+v, %v; want number %d", got, err, tt.want)
			}
		})
	}
}

// TestPruneSignatures: signatures go with the last image that they are of.
func TestPruneSignatures(t *testing.T) {
	l := newLayout(t)
	a := put(t, l, "r/a:1", "layer of a")
	put(t, l, "r/b:1", "layer of b")
	r := ref.Ref{Registry: "r", Repository: "a"}
	payload, err := l.PutBlob([]byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"layers":[{"mediaType":%q,"digest":%q,"size":7}]}`, TypeManifest, typePayload, payload)
	digest, err := l.PutBlob(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []ref.Ref{SignatureRef(r, a.Digest), ReferrersRef(r, a.Digest)} {
		err := l.Update(t.Context(), func(x *Index) {
			x.Set(name.String(), Descriptor{Digest: digest, Size: int64(len(raw)), Annotations: map[string]string{RefName: name.String()}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		remove string
		want   int
	}{
		{"r/b:1", 3},
		{"r/a:1", 0},
	} {
		if err := l.Prune(t.Context(), func(d Descriptor) bool { return d.Annotations[RefName] == tt.remove }); err != nil {
			t.Fatal(err)
		}
		if index, err := l.Index(); err != nil || len(index.Manifests) != tt.want {
			t.Errorf("without %s the index has %+v, %v; want %d entries", tt.remove, index.Manifests, err, tt.want)
		}
	}
	if blobs, err := os.ReadDir(l.path("blobs", "sha256")); err != nil || len(blobs) != 0 {
		t.Errorf("the cache still has %v, %v", blobs, err)
	}
}

func TestSigned(t *testing.T) {
	hex := strings.Repeat("a", 64)
	for name, want := range map[string]string{
		"r/a:sha256-" + hex + ".sig": "sha256:" + hex,
		"r/a:sha256-" + hex:          "sha256:" + hex,
		"r/a:1":                      "",
		"r/a@sha256:" + hex:          "",
		"r/a:1@sha256:" + hex:        "",
		"r/a:sha256-abc.sig":         "",
		"r:1/a":                      "",
		"":                           "",
	} {
		if got := Signed(name); got != want {
			t.Errorf("Signed(%q) = %q; want %q", name, got, want)
		}
	}
}

// TestPrune removes an image and what only it used.
func TestPrune(t *testing.T) {
	l := newLayout(t)
	a, b := put(t, l, "a", "layer of a"), put(t, l, "b", "layer of b")
	err := l.Prune(t.Context(), func(d Descriptor) bool { return d.Annotations[RefName] == "a" })
	if err != nil {
		t.Fatal(err)
	}
	if l.Has(a.Layers[0]) || l.Has(Descriptor{Digest: a.Digest, Size: a.Size()}) {
		t.Error("blobs of the removed image are still there")
	}
	if !l.Complete(b) { // shares the configuration
		t.Error("the other image has lost blobs")
	}
	if index, err := l.Index(); err != nil || index.Find("a") != nil || index.Find("b") == nil {
		t.Errorf("the index is %+v, %v; want b alone", index, err)
	}
}

// TestCollect removes the images that were not used for the longest time, with
// the blobs that no other has, and what is nobody's.
func TestCollect(t *testing.T) {
	for _, tt := range []struct {
		name string
		l    expire.Limits
		gone []string
	}{
		{"no limit", expire.Limits{MaxSize: -1}, nil},
		{"age", expire.Limits{MaxSize: -1, Unused: 60 * time.Hour}, []string{"c", "a"}},
		{"size", expire.Limits{MaxSize: 9000}, []string{"c"}},
		{"size of what is old", expire.Limits{MaxSize: 0, Unused: 80 * time.Hour}, []string{"c"}},
		{"all", expire.Limits{MaxSize: 0}, []string{"c", "a", "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, dry := range []bool{true, false} {
				l := newLayout(t)
				images := map[string]Manifest{}
				for name, hours := range map[string]int{"a": 75, "b": 25, "c": 100} {
					images[name] = put(t, l, name, strings.Repeat(name, 4000))
					old(t, l, images[name].Digest, hours)
				}
				nobodys, err := l.PutBlob([]byte("nobody's"))
				if err != nil {
					t.Fatal(err)
				}
				old(t, l, nobodys, 48)
				tt.l.DryRun = dry
				var told []string
				err = l.Collect(t.Context(), tt.l, func(r expire.Removed) {
					if r.What == "image" {
						told = append(told, r.Name)
						// Its layer and manifest, but not the configuration that all have.
						if want := 4000 + images[r.Name].Size(); r.Size != want && len(told) < 3 {
							t.Errorf("image %s frees %d bytes; want %d", r.Name, r.Size, want)
						}
					}
				})
				if err != nil || !slices.Equal(told, tt.gone) {
					t.Fatalf("dry %v: told %q, %v; want %q", dry, told, err, tt.gone)
				}
				index, err := l.Index()
				if err != nil {
					t.Fatal(err)
				}
				for name, m := range images {
					gone := slices.Contains(tt.gone, name) && !dry
					if l.Complete(m) == gone || (index.Find(name) == nil) != gone {
						t.Errorf("dry %v: image %s: complete %v, in the index %v", dry, name, l.Complete(m), index.Find(name) != nil)
					}
				}
				if _, err := l.Stat(nobodys); (err == nil) != dry {
					t.Errorf("dry %v: an old blob of no image: %v", dry, err)
				}
			}
		})
	}
}

// old makes a blob look as if it was last used so many hours ago.
func old(t *testing.T, l *Layout, digest string, hours int) {
	t.Helper()
	path, err := l.BlobPath(digest)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Duration(hours) * time.Hour)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestTouch(t *testing.T) {
	l := newLayout(t)
	d := Descriptor{Digest: put(t, l, "a", "layer").Digest}
	for _, tt := range []struct {
		hours   int
		touched bool
	}{{0, false}, {2, true}} {
		old(t, l, d.Digest, tt.hours)
		before := l.Used(d)
		l.Touch(d.Digest)
		if got := !l.Used(d).Equal(before); got != tt.touched {
			t.Errorf("Touch after %d hours wrote: %v; want %v", tt.hours, got, tt.touched)
		}
	}
	d.Annotations = map[string]string{PulledAt: "2100-01-01T00:00:00Z"}
	if got := l.Used(d); got.Year() != 2100 {
		t.Errorf("Used = %v; want the later time of the pull", got)
	}
}

// TestVerify finds damage by name, and takes what the store may have for no
// damage.
func TestVerify(t *testing.T) {
	for _, tt := range []struct {
		name    string
		spoil   func(l *Layout, m Manifest) error
		damaged func(m Manifest) string // "" if nothing is
	}{
		{"good", func(*Layout, Manifest) error { return nil }, nil},
		{"no layer", func(l *Layout, m Manifest) error { return l.RemoveBlobs([]string{m.Layers[0].Digest}) }, nil},
		{"layer", func(l *Layout, m Manifest) error { return spoil(l, m.Layers[0].Digest) }, func(m Manifest) string { return m.Layers[0].Digest }},
		{"configuration", func(l *Layout, m Manifest) error { return spoil(l, m.Config.Digest) }, func(m Manifest) string { return m.Config.Digest }},
		{"manifest", func(l *Layout, m Manifest) error { return spoil(l, m.Digest) }, func(m Manifest) string { return m.Digest }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLayout(t)
			m := put(t, l, "a", "layer")
			if err := tt.spoil(l, m); err != nil {
				t.Fatal(err)
			}
			damaged, err := l.Verify(t.Context(), m.Digest)
			if tt.damaged == nil {
				if err != nil || len(damaged) > 0 {
					t.Errorf("Verify = %q, %v; want nothing", damaged, err)
				}
				return
			}
			want := tt.damaged(m)
			if err == nil || !strings.Contains(err.Error(), want) || !slices.Equal(damaged, []string{want}) {
				t.Fatalf("Verify = %q, %v; want %s", damaged, err, want)
			}
			if err := l.RemoveBlobs(damaged); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Stat(want); !errors.Is(err, ErrNotFound) {
				t.Errorf("after RemoveBlobs the blob is there: %v", err)
			}
		})
	}
}

func spoil(l *Layout, digest string) error {
	path, err := l.BlobPath(digest)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte("spoilt"), 0o600)
}

// TestPruneFull: where there is no space left for a new index, images can be
// removed all the same.
func TestPruneFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("brolga-test", dir, "tmpfs", 0, "nr_inodes=100"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	l, err := Create(filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := put(t, l, "a", "layer of a"), put(t, l, "b", "layer of b")
	put(t, l, "c", "layer of c") // a lease and an index take three files
	for i := 0; err == nil; i++ {
		err = os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600)
	}
	if err := l.Update(t.Context(), func(*Index) {}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Update of a full cache = %v; want %v", err, unix.ENOSPC)
	}
	if err := l.Prune(t.Context(), func(d Descriptor) bool { return d.Annotations[RefName] != "b" }); err != nil {
		t.Fatal(err)
	}
	if index, err := l.Index(); err != nil || index.Find("a") != nil || index.Find("b") == nil || l.Has(a.Layers[0]) || !l.Complete(b) {
		t.Errorf("the index is %+v, %v; want b alone, and its blobs", index, err)
	}
}
