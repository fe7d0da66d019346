// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// contents is a set of named files, in a directory or in an archive.
type contents interface {
	// small returns a JSON document no longer than a manifest may be.
	small(name string) ([]byte, error)
	// each calls take with each of the files, in any order. The error of one
	// that is not there wraps errMissing.
	each(ctx context.Context, names []string, take func(name string, r io.Reader) error) error
}

// errMissing means that a file is not in an archive or a directory.
var errMissing = errors.New("it is missing")

// containerdName is the annotation in which Docker and containerd keep the whole
// name of an image; layout.RefName has the tag alone there.
const containerdName = "io.containerd.image.name"

// blobName returns the name of a blob in an OCI image layout.
func blobName(digest string) string { return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:") }

// oci loads from an OCI image layout.
func (w *loader) oci(ctx context.Context, from contents) (image, error) {
	index, err := readIndex(from)
	if err != nil {
		return image{}, err
	}
	top, err := w.choose(index)
	if err != nil {
		return image{}, err
	}
	img, err := w.descend(from, top)
	if err != nil {
		return image{}, err
	}
	if _, ok := w.cached(img.top); ok {
		return img, nil
	}
	if err := w.blobs(ctx, from, []layout.Descriptor{img.m.Config}); err != nil {
		return image{}, err
	}
	config, err := w.layout.ReadBlob(img.m.Config.Digest, layout.MaxManifest)
	if err == nil {
		err = w.o.Platform.Check(config)
	}
	if err != nil || w.have(img.m) {
		return img, err
	}
	return img, w.blobs(ctx, from, img.m.Layers)
}

// readIndex reads index.json.
func readIndex(from contents) (layout.Index, error) {
	raw, err := from.small("index.json")
	if errors.Is(err, errMissing) {
		return layout.Index{}, fault.WithHint(errors.New("it has no index.json, so it is not an OCI image layout"),
			"a directory with the files of an image is named dir:PATH")
	}
	if err != nil {
		return layout.Index{}, err
	}
	var index layout.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return layout.Index{}, fmt.Errorf("read index.json: %w", err)
	}
	return index, nil
}

// ociNames returns what the images in a layout are called.
func ociNames(from contents) ([]string, error) {
	index, err := readIndex(from)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range index.Manifests {
		if name := d.Annotations[containerdName]; name != "" {
			names = append(names, name)
		} else {
			names = append(names, d.Annotations[layout.RefName])
		}
	}
	return names, nil
}

// choose returns the image in an index that is meant.
func (w *loader) choose(index layout.Index) (layout.Descriptor, error) {
	if w.o.Ref.Digest != "" {
		return layout.Descriptor{Digest: w.o.Ref.Digest}, nil // found or not as a blob
	}
	var named []layout.Descriptor
	var names []string
	digests := map[string]bool{}
	for _, d := range index.Manifests {
		if !ref.IsDigest(d.Digest) {
			return layout.Descriptor{}, fmt.Errorf("index.json: digest %q: want a sha256 digest", d.Digest)
		}
		mine := []string{d.Annotations[layout.RefName], d.Annotations[containerdName]}
		for _, name := range mine {
			if name != "" {
				names = append(names, name)
			}
		}
		if w.o.Ref.Tag == "" || isNamed(w.o.Ref.Tag, mine) {
			named = append(named, d)
			digests[d.Digest] = true
		}
	}
	switch {
	case len(digests) == 1:
		return named[0], nil
	case len(named) == 0:
		return layout.Descriptor{}, w.notNamed(names)
	case len(names) == 0 || w.o.Ref.Tag != "": // one image for several platforms
		return (&layout.Index{Manifests: named}).Select(w.o.Platform)
	}
	return layout.Descriptor{}, w.notNamed(names)
}

// isNamed says whether a name is among those of an image, as it is written or as
// it is meant.
func isNamed(want string, names []string) bool {
	meant, err := ref.Parse(want)
	for _, name := range names {
		if name == want {
			return true
		}
		if r, err2 := ref.Parse(name); err == nil && err2 == nil && r == meant {
			return true
		}
	}
	return false
}

// notNamed is the error for a name that an archive does not have, or for none
// where it has several.
func (w *loader) notNamed(names []string) error {
	r := w.o.Ref
	if r.Tag != "" {
		return fmt.Errorf("there is no image %q in it; there is %s", r.Tag, list(names))
	}
	if len(names) == 0 {
		return errors.New("there is no image in it")
	}
	return fault.WithHint(fmt.Errorf("there are several images in it: %s", list(names)), "say which: "+r.Name()+":NAME")
}

// descend stores the manifest for this platform, and the indexes that lead to
// it.
func (w *loader) descend(from contents, top layout.Descriptor) (image, error) {
	img := image{top: top}
	digest := top.Digest
	for depth := 0; depth < 3; depth++ {
		raw, err := from.small(blobName(digest))
		if errors.Is(err, errMissing) && digest == w.o.Ref.Digest {
			return image{}, fault.WithHint(fmt.Errorf("there is no image %s in it", digest),
				"if the file was exchanged after the job was submitted, submit the job again")
		}
		if err != nil {
			return image{}, fmt.Errorf("manifest %s: %w", digest, err)
		}
		if got := layout.Digest(raw); got != digest {
			return image{}, fmt.Errorf("manifest %s is corrupt: its content has digest %s", digest, got)
		}
		if _, err := w.layout.PutBlob(raw); err != nil {
			return image{}, err
		}
		m, index, err := layout.Parse(raw)
		if err != nil {
			return image{}, fmt.Errorf("read manifest %s: %w", digest, err)
		}
		if depth == 0 {
			img.top = layout.Descriptor{MediaType: layout.TypeManifest, Digest: digest, Size: int64(len(raw))}
			if index != nil {
				img.top.MediaType = layout.TypeIndex
			}
		}
		if index == nil {
			img.m = m
			return img, nil
		}
		next, err := index.Select(w.o.Platform)
		if err != nil {
			return image{}, err
		}
		digest = next.Digest
	}
	return image{}, fmt.Errorf("read index %s: indexes in indexes in indexes", top.Digest)
}

// blobs stores blobs.
func (w *loader) blobs(ctx context.Context, from contents, all []layout.Descriptor) error {
	var names []string
	size := map[string]int64{}
	for _, d := range all {
		if _, twice := size[blobName(d.Digest)]; !twice {
			names = append(names, blobName(d.Digest))
		}
		size[blobName(d.Digest)] = d.Size
	}
	return from.each(ctx, names, func(name string, r io.Reader) error {
		digest := "sha256:" + filepath.Base(name)
		// One byte more shows a file that is too long.
		got, err := w.layout.Receive(io.LimitReader(r, size[name]+1), digest)
		if err == nil && got.Size != size[name] {
			err = fmt.Errorf("blob %s has %d bytes; the manifest says %d", digest, got.Size, size[name])
		}
		return err
	})
}

// directory is an OCI image layout on the disk.
type directory string

func (dir directory) open(name string) (*os.File, error) {
	f, err := userfile.File(filepath.Join(string(dir), name))
	if errors.Is(err, unix.ENOTDIR) {
		return nil, fault.WithHint(fmt.Errorf("%s is not a directory", string(dir)), "an archive of a layout is named oci-archive:FILE")
	}
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(string(dir)); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s: %w", name, errMissing)
	}
	return f, err
}

func (dir directory) small(name string) ([]byte, error) {
	f, err := dir.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSmall(f, name)
}

func readSmall(r io.Reader, name string) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, layout.MaxManifest+1))
	if err == nil && len(content) > layout.MaxManifest {
		err = fmt.Errorf("%s is longer than %d bytes", name, layout.MaxManifest)
	}
	return content, err
}

func (dir directory) each(ctx context.Context, names []string, take func(string, io.Reader) error) error {
	for _, name := range names {
		f, err := dir.open(name)
		if err != nil {
			return err
		}
		err = take(name, layout.Stoppable(ctx, f))
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
