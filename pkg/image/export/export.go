// SPDX-License-Identifier: Apache-2.0

// Package export writes images of a user's image cache as OCI image layouts, in
// a directory or in an archive, for other programs. Every blob is checked against
// its digest while it is copied.
package export

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// Image is what to write: the image with a manifest, and how to call it in its
// new place, which may be empty.
type Image struct {
	Layout   *layout.Layout
	Manifest layout.Manifest
	Name     string
}

// Directory writes the image into an empty directory.
func Directory(ctx context.Context, i Image, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o777); err != nil {
		return err
	}
	return i.write(ctx, func(name string, _ int64, r io.Reader) error {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Sync(), f.Close())
	})
}

// Archive writes the image as a tar file. The same image gives the same bytes.
func Archive(ctx context.Context, i Image, w io.Writer) error {
	tw := tar.NewWriter(w)
	err := i.write(ctx, func(name string, size int64, r io.Reader) error {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}); err != nil {
			return err
		}
		_, err := io.Copy(tw, r)
		return err
	})
	return errors.Join(err, tw.Close())
}

// write calls put for each file of the layout, the one that names the image last.
func (i Image) write(ctx context.Context, put func(name string, size int64, r io.Reader) error) error {
	document := func(name, text string) error { return put(name, int64(len(text)), strings.NewReader(text)) }
	if err := document("oci-layout", `{"imageLayoutVersion":"1.0.0"}`); err != nil {
		return err
	}
	done := map[string]bool{}
	for _, d := range append(i.Manifest.Blobs(), i.manifest()) {
		if done[d.Digest] {
			continue
		}
		done[d.Digest] = true
		if err := i.blob(ctx, d, put); err != nil {
			return err
		}
	}
	top := i.manifest()
	if i.Name != "" {
		top.Annotations = map[string]string{layout.RefName: i.Name}
	}
	index, err := json.Marshal(layout.Index{SchemaVersion: 2, MediaType: layout.TypeIndex, Manifests: []layout.Descriptor{top}})
	if err != nil {
		return err
	}
	return document("index.json", string(index))
}

// manifest describes the manifest. Its type is in it, or it is that of OCI.
func (i Image) manifest() layout.Descriptor {
	var doc struct{ MediaType string }
	_ = json.Unmarshal(i.Manifest.Raw, &doc) // has been parsed before
	if doc.MediaType == "" {
		doc.MediaType = layout.TypeManifest
	}
	return layout.Descriptor{MediaType: doc.MediaType, Digest: i.Manifest.Digest, Size: i.Manifest.Size()}
}

func (i Image) blob(ctx context.Context, d layout.Descriptor, put func(string, int64, io.Reader) error) error {
	f, err := i.Layout.Blob(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	r := io.TeeReader(layout.Stoppable(ctx, io.LimitReader(f, d.Size+1)), sum)
	if err := put("blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:"), d.Size, r); err != nil && !errors.Is(err, tar.ErrWriteTooLong) {
		return err
	}
	if "sha256:"+hex.EncodeToString(sum.Sum(nil)) != d.Digest {
		return fault.WithHint(fmt.Errorf("blob %s is damaged in the cache", d.Digest), `"brolga verify --repair" fetches it again`)
	}
	return nil
}
