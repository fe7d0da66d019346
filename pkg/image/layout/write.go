// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/image/lease"
	"github.com/brolga-hpc/brolga/pkg/safefile"
)

// Create opens the layout in dir and makes what is missing of it, for the user
// alone.
func Create(dir string) (*Layout, error) {
	l := &Layout{dir}
	for _, d := range []string{l.path("blobs", "sha256"), l.path("lease")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("create image cache: %w", err)
		}
	}
	if _, err := os.Lstat(l.path("oci-layout")); err == nil {
		return l, nil
	}
	if err := l.writeFile("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return nil, fmt.Errorf("create image cache: %w", err)
	}
	return l, nil
}

// LeasePath returns the path of the lease (package lease) with the given name.
func (l *Layout) LeasePath(name string) string { return l.path("lease", name) }

// PutBlob stores content under its digest and returns that.
func (l *Layout) PutBlob(content []byte) (string, error) {
	digest := Digest(content)
	if _, err := l.ReadBlob(digest, int64(len(content))); err == nil {
		return digest, nil
	}
	return digest, l.writeFile(filepath.Join("blobs", "sha256", strings.TrimPrefix(digest, "sha256:")), content)
}

// Receive stores what r has as a blob and returns its descriptor, without a
// media type. If want is not empty, that is the digest that the content must
// have. The blob is complete or is not there.
func (l *Layout) Receive(r io.Reader, want string) (_ Descriptor, err error) {
	f, err := os.CreateTemp(l.path("blobs", "sha256"), ".tmp-")
	if err != nil {
		return Descriptor{}, err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, sum), r)
	if err != nil {
		return Descriptor{}, err
	}
	digest := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if want != "" && digest != want {
		return Descriptor{}, fmt.Errorf("blob %s is corrupt: its content has digest %s", want, digest)
	}
	path, err := l.BlobPath(digest)
	if err != nil {
		return Descriptor{}, err
	}
	if err := f.Sync(); err != nil {
		return Descriptor{}, err
	}
	return Descriptor{Digest: digest, Size: size}, os.Rename(f.Name(), path)
}

// Update changes index.json: it calls change with the current content and
// publishes the result, so that concurrent changes do not undo each other and a
// reader sees all of a change or nothing.
func (l *Layout) Update(ctx context.Context, change func(*Index)) error {
	held, err := lease.Acquire(ctx, l.LeasePath("index"), lease.Options{})
	if err != nil {
		return fmt.Errorf("update image cache: %w", err)
	}
	defer held.Close()
	index, err := l.Index()
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("update image cache: %w", err)
	}
	index.SchemaVersion, index.MediaType = 2, TypeIndex
	change(&index)
	if index.Manifests == nil {
		index.Manifests = []Descriptor{}
	}
	text, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return fmt.Errorf("update image cache: %w", err)
	}
	if err := l.writeFile("index.json", append(text, '\n')); err != nil {
		return fmt.Errorf("update image cache: %w", err)
	}
	return nil
}

// Set gives an image a name, and takes the name from the image that had it.
func (x *Index) Set(name string, d Descriptor) {
	x.Delete(name)
	x.Manifests = append(x.Manifests, d)
}

// Delete takes a name away and says whether an image had it.
func (x *Index) Delete(name string) bool {
	n := len(x.Manifests)
	x.Manifests = slices.DeleteFunc(x.Manifests, func(d Descriptor) bool { return d.Annotations[RefName] == name })
	return len(x.Manifests) < n
}

// writeFile replaces the file at path, relative to the layout, in one step.
func (l *Layout) writeFile(path string, content []byte) error {
	return safefile.Replace(l.path(path), content, 0o600, ".tmp-")
}
