// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/load"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// cached makes an image with two equal layers in a fresh cache.
func cached(t *testing.T) Image {
	t.Helper()
	l, err := layout.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put := func(content, kind string) layout.Descriptor {
		digest, err := l.PutBlob([]byte(content))
		if err != nil {
			t.Fatal(err)
		}
		return layout.Descriptor{MediaType: kind, Digest: digest, Size: int64(len(content))}
	}
	layer := put("layer", layout.TypeLayer)
	config, err := json.Marshal(map[string]any{"rootfs": map[string]any{"diff_ids": []string{layer.Digest, layer.Digest}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := layout.Compose(put(string(config), layout.TypeConfig), []layout.Descriptor{layer, layer})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.PutBlob(m.Raw); err != nil {
		t.Fatal(err)
	}
	return Image{Layout: l, Manifest: m, Name: "v1"}
}

// TestRoundTrip checks that what is written can be loaded, and is the same image.
func TestRoundTrip(t *testing.T) {
	i := cached(t)
	dir, archive := filepath.Join(t.TempDir(), "dir"), filepath.Join(t.TempDir(), "archive")
	if err := Directory(t.Context(), i, dir); err != nil {
		t.Fatal(err)
	}
	var b, again bytes.Buffer
	if err := errors.Join(Archive(t.Context(), i, &b), Archive(t.Context(), i, &again)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Error("the same image gives two archives")
	}
	if err := os.WriteFile(archive, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"oci:" + dir + ":v1", "oci:" + dir, "oci-archive:" + archive + ":v1"} {
		r, err := ref.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		res, err := load.Load(t.Context(), load.Options{Ref: r, Layout: t.TempDir()})
		if err != nil || res.Manifest != i.Manifest.Digest {
			t.Errorf("Load(%s) = %v, %v; want %s", name, res, err, i.Manifest.Digest)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Run("damaged blob", func(t *testing.T) {
		for _, content := range []string{"LAYER", "layer and more", "lay"} {
			i := cached(t)
			path, err := i.Layout.BlobPath(i.Manifest.Layers[0].Digest)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			want := "is damaged in the cache"
			if err := Archive(t.Context(), i, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Archive of %q = %v; want an error with %q", content, err, want)
			}
			if err := Directory(t.Context(), i, filepath.Join(t.TempDir(), "x")); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Directory of %q = %v; want an error with %q", content, err, want)
			}
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Archive(ctx, cached(t), &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
			t.Errorf("Archive = %v; want %v", err, context.Canceled)
		}
	})
}
