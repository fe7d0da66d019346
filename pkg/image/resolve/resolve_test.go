// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/policy"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// put stores an image without layers for an architecture, and gives it a name. It returns its
// digest.
func put(t *testing.T, l *layout.Layout, name, architecture, from string) string {
	t.Helper()
	blob := func(content string) layout.Descriptor {
		digest, err := l.PutBlob([]byte(content))
		if err != nil {
			t.Fatal(err)
		}
		return layout.Descriptor{Digest: digest, Size: int64(len(content))}
	}
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": layout.TypeManifest, "layers": []layout.Descriptor{},
		"config": blob(`{"os": "linux", "architecture": "` + architecture + `"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	d := blob(string(raw))
	d.Annotations = map[string]string{layout.RefName: name}
	if from != "" {
		d.Annotations[layout.Source] = from
	}
	if err := l.Update(t.Context(), func(x *layout.Index) { x.Set(name, d) }); err != nil {
		t.Fatal(err)
	}
	return d.Digest
}

func parse(t *testing.T, name string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDecide checks what is done for names that the cache knows, and for those that it does
// not know, under each of --container-pull and the policies for signatures.
func TestDecide(t *testing.T) {
	l, err := layout.Create(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	host := layout.Host()
	known, foreign := parse(t, "example.org/known:1"), parse(t, "example.org/foreign:1")
	digest := put(t, l, known.Name(), host.Architecture, "")
	put(t, l, foreign.Name(), "s390x", "")
	unknown := parse(t, "example.org/unknown:1")
	missing, always := Fetch{Platform: host, IfMissing: true}, Fetch{Platform: host}
	offline := Fetch{Platform: host, IfMissing: true, Offline: true}
	for _, tt := range []struct {
		name  string
		image ref.Ref
		pull  string
		check policy.Check
		want  Answer
		err   string
	}{
		{name: "known", image: known, pull: "missing", want: Answer{Digest: digest}},
		{name: "known, never", image: known, pull: "never", want: Answer{Digest: digest}},
		{name: "known, always", image: known, pull: "always", want: Answer{Fetch: always}},
		{name: "unknown", image: unknown, pull: "missing", want: Answer{Fetch: missing}},
		{name: "unknown, always", image: unknown, pull: "always", want: Answer{Fetch: always}},
		{name: "unknown, never", image: unknown, pull: "never", err: "is not in your cache, and is not to be pulled"},

		{name: "verified", image: known, pull: "missing", check: policy.Require, want: Answer{Fetch: missing}},
		{name: "verified, never", image: known, pull: "never", check: policy.Require, want: Answer{Fetch: offline}},
		{name: "warned of, never", image: known, pull: "never", check: policy.Warn, want: Answer{Fetch: offline}},
		{name: "verified, unknown, never", image: unknown, pull: "never", check: policy.Require, err: "is not in your cache, and is not to be pulled"},

		{name: "another machine's", image: foreign, pull: "missing", err: "s390x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := config.Default()
			if tt.check != "" {
				site.Policy.Signatures = []policy.Rule{{Images: "**", Check: tt.check}}
			}
			got, err := Decide(Question{Image: tt.image, Pull: tt.pull, Config: site, Cache: l.Dir()})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("Decide = %+v, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("Decide = %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

// TestDecideForRun checks that the cache answers only with all layers where these are needed.
func TestDecideForRun(t *testing.T) {
	l, err := layout.Create(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	known := parse(t, "example.org/known:1")
	digest := put(t, l, known.Name(), layout.Host().Architecture, "")
	m, err := l.Manifest(digest, layout.Host())
	if err != nil {
		t.Fatal(err)
	}
	path, err := l.BlobPath(m.Config.Digest)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, needed := range []bool{false, true} {
		got, err := Decide(Question{Image: known, Pull: "missing", Config: config.Default(), Cache: l.Dir(), Needed: func(string) bool { return needed }})
		if err != nil || (got.Digest == "") != needed {
			t.Errorf("needed %v: Decide = %+v, %v", needed, got, err)
		}
	}
}

// TestDecideFiles checks what is done for directories and for files, which are read again
// when they have changed, also with --container-pull=never.
func TestDecideFiles(t *testing.T) {
	dir := t.TempDir()
	l, err := layout.Create(filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	const file = "/usr/lib/os-release" // its times are old enough to tell
	image := parse(t, "docker-archive:"+file)
	ask := func(r ref.Ref, pull string) Answer {
		t.Helper()
		answer, err := Decide(Question{Image: r, Pull: pull, Config: config.Default(), Cache: l.Dir()})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if got := ask(parse(t, "dir:"+dir), "missing"); !got.InPlace {
		t.Errorf("a directory: %+v", got)
	}
	for _, pull := range []string{"missing", "never"} {
		if got := ask(image, pull); got.Digest != "" || got.InPlace {
			t.Errorf("a file that nobody has read, %s: %+v", pull, got)
		}
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stamp, err := userfile.Stamp(f)
	if err != nil || stamp == "" {
		t.Fatalf("Stamp = %q, %v", stamp, err)
	}
	digest := put(t, l, image.Name(), layout.Host().Architecture, stamp)
	if got := ask(image, "missing"); got.Digest != digest {
		t.Errorf("a file that the cache knows: %+v", got)
	}
}
