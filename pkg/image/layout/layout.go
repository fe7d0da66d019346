// SPDX-License-Identifier: Apache-2.0

// Package layout is a user's image cache, an OCI image layout:
//
//	oci-layout, index.json     as the image specification has them
//	blobs/sha256/HEX           manifests, configurations and layers
//	lease/                     who pulls what, or changes the index
//
// Images are found in index.json by the annotation
// org.opencontainers.image.ref.name, which holds their whole canonical name.
//
// All content belongs to the user and is untrusted, also where root reads it:
// sizes are limited, digests are checked, and nothing is followed that is not a
// regular file. Who reads another user's layout does so with that user's
// file-system identity (package identity).
package layout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// ErrNotFound means that the layout does not have the image or blob asked for,
// or not all of it.
var ErrNotFound = errors.New("not in the image cache")

// Limits of what is read, in bytes. Root reads layouts for users.
const (
	// MaxManifest is for manifests, indexes and configurations. Registries refuse longer
	// manifests (the distribution specification: "at least 4 megabytes").
	MaxManifest = 4 << 20
	// maxIndex is for index.json, which has room for the names of some ten thousand
	// images. It is read one descriptor at a time.
	maxIndex = 16 << 20
	// maxDescriptor is for one descriptor with its annotations, of which those of
	// registries take some 4 KiB.
	maxDescriptor = 64 << 10
)

// Layout is a directory with an OCI image layout. It holds no resources.
type Layout struct{ dir string }

// Open returns the layout in dir. A directory that does not exist, or is not a
// layout, gives an error that wraps [ErrNotFound].
func Open(dir string) (*Layout, error) {
	f, err := openRegular(filepath.Join(dir, "oci-layout"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open image cache %s: %w", dir, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open image cache: %w", err)
	}
	return &Layout{dir}, f.Close()
}

// Dir returns the directory of the layout.
func (l *Layout) Dir() string { return l.dir }

// Resolve returns the digest of the index or manifest that r names. A Ref with
// a digest is that digest, if the layout has the blob.
func (l *Layout) Resolve(r ref.Ref) (string, error) {
	d, err := l.Lookup(r)
	if err != nil {
		return "", err
	}
	return d.Digest, nil
}

// Lookup is [Layout.Resolve] with the descriptor, which for a digest may have
// nothing but that digest and the size.
func (l *Layout) Lookup(r ref.Ref) (Descriptor, error) {
	if r.Digest != "" {
		size, err := l.Stat(r.Digest)
		if err != nil {
			return Descriptor{}, fmt.Errorf("look up %s: %w", r, err)
		}
		return Descriptor{Digest: r.Digest, Size: size}, nil
	}
	d, err := l.find(r.String())
	if err != nil {
		return Descriptor{}, fmt.Errorf("look up %s: %w", r, err)
	}
	if !ref.IsDigest(d.Digest) {
		return Descriptor{}, fmt.Errorf("look up %s: %s has no digest for it", r, l.path("index.json"))
	}
	return d, nil
}

// find returns the descriptor that index.json has for a name. It keeps one at a time:
// a descriptor takes fifty times the room of the shortest text that stands for one,
// and root reads this for users.
func (l *Layout) find(name string) (found Descriptor, err error) {
	f, err := l.openIndex()
	if err != nil {
		return found, err
	}
	defer f.Close()
	err = eachManifest(budget.NewMeter(f, "it is", maxIndex), func(d Descriptor) error {
		if d.Annotations[RefName] != name {
			return nil
		}
		found = d
		return errFound
	})
	switch {
	case errors.Is(err, errFound):
		return found, nil
	case err != nil:
		return found, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return found, ErrNotFound
}

var errFound = errors.New("found")

func (l *Layout) openIndex() (*os.File, error) {
	f, err := openRegular(l.path("index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	return f, err
}

// Index reads index.json.
func (l *Layout) Index() (Index, error) {
	f, err := l.openIndex()
	if err != nil {
		return Index{}, err
	}
	defer f.Close()
	text, err := budget.Open(f, maxIndex)
	if err != nil {
		return Index{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	var index Index
	if err := json.Unmarshal(text, &index); err != nil {
		return Index{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return index, nil
}

// Blob opens a blob. Its content is not verified.
func (l *Layout) Blob(digest string) (*os.File, error) {
	path, err := l.BlobPath(digest)
	if err != nil {
		return nil, err
	}
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", digest, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", digest, err)
	}
	return f, nil
}

// BlobPath returns where the blob with the given digest is, or would be.
func (l *Layout) BlobPath(digest string) (string, error) {
	if !ref.IsDigest(digest) {
		return "", fmt.Errorf("blob %q: want a sha256 digest", digest)
	}
	return l.path("blobs", "sha256", strings.TrimPrefix(digest, "sha256:")), nil
}

// Stat returns the size of a blob.
func (l *Layout) Stat(digest string) (int64, error) {
	path, err := l.BlobPath(digest)
	if err != nil {
		return 0, err
	}
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("blob %s: %w", digest, ErrNotFound)
	case err != nil:
		return 0, fmt.Errorf("blob %s: %w", digest, err)
	case !st.Mode().IsRegular():
		return 0, fmt.Errorf("blob %s: not a regular file", digest)
	}
	return st.Size(), nil
}

// Has says whether the layout has a blob of the descriptor's digest and size.
func (l *Layout) Has(d Descriptor) bool {
	size, err := l.Stat(d.Digest)
	return err == nil && size == d.Size
}

// ReadBlob reads a blob of at most limit bytes and checks its digest.
func (l *Layout) ReadBlob(digest string, limit int64) ([]byte, error) {
	f, err := l.Blob(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := budget.Open(f, limit)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", digest, err)
	}
	if got := Digest(content); got != digest {
		return nil, fmt.Errorf("blob %s: the content has digest %s", digest, got)
	}
	return content, nil
}

// Manifest returns the manifest with the given digest, or, if that is an index,
// the manifest of an image in it that runs on platform p.
func (l *Layout) Manifest(digest string, p Platform) (Manifest, error) {
	for range maxNesting {
		content, err := l.ReadBlob(digest, MaxManifest)
		if err != nil {
			return Manifest{}, fmt.Errorf("read manifest: %w", err)
		}
		manifest, index, err := Parse(content)
		if err != nil {
			return Manifest{}, fmt.Errorf("read manifest %s: %w", digest, err)
		}
		if index == nil {
			return manifest, nil
		}
		d, err := index.Select(p)
		if err != nil {
			return Manifest{}, fmt.Errorf("read index %s: %w", digest, err)
		}
		digest = d.Digest
	}
	return Manifest{}, fmt.Errorf("read index %s: indexes in indexes in indexes", digest)
}

// Complete says whether the layout has all blobs of m, by size.
func (l *Layout) Complete(m Manifest) bool {
	for _, d := range m.Blobs() {
		if !l.Has(d) {
			return false
		}
	}
	return true
}

// Verify reads the image that has the digest, of its index or manifest, for this
// platform, and compares what the layout has of it with the digests. It returns
// the digests of the blobs that differ. Layers that are not there may be in the
// store, and are no error.
func (l *Layout) Verify(ctx context.Context, digest string) (damaged []string, err error) {
	if _, err := l.ReadBlob(digest, MaxManifest); err != nil {
		return []string{digest}, err
	}
	m, err := l.Manifest(digest, Host())
	if err != nil {
		return nil, err // an index, whose digest is right
	}
	var errs []error
	for _, d := range m.Blobs() {
		err := l.verifyBlob(ctx, d)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			damaged = append(damaged, d.Digest)
			errs = append(errs, err)
		}
	}
	return damaged, errors.Join(errs...)
}

func (l *Layout) verifyBlob(ctx context.Context, d Descriptor) error {
	f, err := l.Blob(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	for err == nil && ctx.Err() == nil {
		_, err = io.CopyN(sum, f, 16<<20)
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != d.Digest {
		return fmt.Errorf("blob %s: the content has digest %s", d.Digest, got)
	}
	return nil
}

// RemoveBlobs removes blobs, which another pull fetches again.
func (l *Layout) RemoveBlobs(digests []string) error {
	var errs []error
	for _, digest := range digests {
		path, err := l.BlobPath(digest)
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Digest returns the digest of content.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (l *Layout) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

// openRegular opens a regular file for reading. A symbolic link is refused, and
// a FIFO does not make it wait.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("open %s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Stoppable returns what r reads, until the context ends.
func Stoppable(ctx context.Context, r io.Reader) io.Reader { return stoppable{ctx, r} }

type stoppable struct {
	ctx context.Context
	r   io.Reader
}

func (s stoppable) Read(b []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.r.Read(b)
}
