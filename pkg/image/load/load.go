// SPDX-License-Identifier: Apache-2.0

// Package load puts images from files into a user's image cache: from OCI image
// layouts, from archives that docker save, podman save or skopeo have written,
// and from squashfs files.
//
// It runs as the user. What it stores is verified by digest and complete, or is
// not there. An image that has no manifest gets one that depends on its
// configuration and layers alone, so the same image has the same digest
// everywhere, however its archive is compressed. The manifest of a squashfs
// refers to the file as its only layer, by the digest of its bytes.
//
// The cache notes what identified the file (package source). As long as that is
// the same, the file is not read again.
package load

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/lease"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// Options says what to load and where to.
type Options struct {
	Ref    ref.Ref // of a file or directory, with an absolute path
	Layout string  // directory of the image cache, made when it is missing
	// Have says whether the image with this manifest is at hand in another form,
	// so that its layers are not needed. May be nil.
	Have func(manifestDigest string) bool
	// Name is what the image is called in the cache; empty is Ref.
	Name string
	// Platform is what the image is to run on; zero is this machine's.
	Platform layout.Platform
}

// Names returns the whole names, with a repository, that images in a file or
// directory have.
func Names(ctx context.Context, r ref.Ref) ([]string, error) {
	names, err := names(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", r, explain(err, Options{Ref: r}))
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.ContainsAny(name, "/:") })
	return slices.Compact(slices.Sorted(slices.Values(names))), nil
}

func names(ctx context.Context, r ref.Ref) ([]string, error) {
	switch r.Kind {
	case ref.Squashfs:
		return nil, nil
	case ref.OCI:
		return ociNames(directory(r.Path))
	}
	f, err := userfile.File(r.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := openArchive(ctx, f)
	if err != nil {
		return nil, err
	}
	if a.has("index.json") {
		return ociNames(a)
	}
	return dockerNames(a)
}

// Result is what was loaded.
type Result struct {
	Digest   string // of an index or a manifest
	Manifest string // digest of the manifest for this platform
}

// Load makes sure that the cache has the image as it is in the file now. An
// image with a digest that the cache has needs no file.
func Load(ctx context.Context, o Options) (Result, error) {
	if o.Name == "" {
		o.Name = o.Ref.String()
	}
	res, err := load(ctx, o)
	if err != nil {
		return Result{}, fmt.Errorf("load %s: %w", o.Ref, explain(err, o))
	}
	return res, nil
}

func load(ctx context.Context, o Options) (Result, error) {
	l, err := layout.Create(o.Layout)
	if err != nil {
		return Result{}, err
	}
	w := &loader{o: o, layout: l}
	if o.Platform == (layout.Platform{}) {
		w.o.Platform = layout.Host()
	}
	if o.Ref.Digest != "" {
		if res, ok := w.cached(layout.Descriptor{Digest: o.Ref.Digest}); ok {
			return res, nil
		}
	}
	sum := sha256.Sum256([]byte(o.Name))
	held, err := lease.Acquire(ctx, l.LeasePath("load-"+hex.EncodeToString(sum[:16])), lease.Options{})
	if err != nil {
		return Result{}, err
	}
	defer held.Close()
	if o.Ref.Kind == ref.OCI {
		return w.directory(ctx)
	}
	return w.file(ctx)
}

type loader struct {
	o      Options
	layout *layout.Layout
}

// image is an image whose blobs are in the cache.
type image struct {
	top layout.Descriptor // of an index or a manifest
	m   layout.Manifest   // for this platform
}

// cached returns the image that d points to if the cache has all of it.
func (w *loader) cached(d layout.Descriptor) (Result, bool) {
	m, err := w.layout.Manifest(d.Digest, w.o.Platform)
	if err != nil || !w.layout.Has(m.Config) || (!w.have(m) && !w.layout.Complete(m)) {
		return Result{}, false
	}
	return Result{Digest: d.Digest, Manifest: m.Digest}, true
}

func (w *loader) have(m layout.Manifest) bool { return w.o.Have != nil && w.o.Have(m.Digest) }

// directory loads from an OCI image layout. Its index says which image a name
// means, so there is no need to notice a change of anything else.
func (w *loader) directory(ctx context.Context) (Result, error) {
	img, err := w.oci(ctx, directory(w.o.Ref.Path))
	if err != nil {
		return Result{}, err
	}
	return w.record(ctx, img, "")
}

// file loads from a file, unless it is the one that was loaded before.
func (w *loader) file(ctx context.Context) (Result, error) {
	f, err := userfile.File(w.o.Ref.Path)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	stamp, err := userfile.Stamp(f)
	if err != nil {
		return Result{}, err
	}
	if res, ok := w.unchanged(stamp); ok {
		return res, nil
	}
	var img image
	if w.o.Ref.Kind == ref.Squashfs {
		img, err = w.squashfs(ctx, f)
	} else {
		img, err = w.archive(ctx, f)
	}
	if err != nil {
		return Result{}, err
	}
	if again, err := userfile.Stamp(f); err != nil || (stamp != "" && again != stamp) {
		return Result{}, errors.Join(err, errors.New("the file was changed while it was read"))
	}
	return w.record(ctx, img, stamp)
}

// unchanged returns the image of the name if it was loaded from a file with that
// stamp.
func (w *loader) unchanged(stamp string) (Result, bool) {
	index, err := w.layout.Index()
	if err != nil {
		return Result{}, false
	}
	if d := index.FindSource(w.o.Name, stamp); d != nil {
		return w.cached(*d)
	}
	return Result{}, false
}

// archive loads from a tar file, which is compressed or not.
func (w *loader) archive(ctx context.Context, f *os.File) (image, error) {
	a, err := openArchive(ctx, f)
	if err != nil {
		return image{}, err
	}
	switch {
	case a.has("index.json"):
		return w.oci(ctx, a)
	case a.has("manifest.json"):
		return w.docker(ctx, a)
	}
	return image{}, errNoImage
}

var errNoImage = fault.WithHint(errors.New("the archive has no image"),
	`it must be one that "docker save", "podman save" or skopeo has written: with an index.json or a manifest.json, and whole`)

// squashfs loads a squashfs, whose content is not looked at.
func (w *loader) squashfs(ctx context.Context, f *os.File) (image, error) {
	sum := sha256.New()
	size, err := io.Copy(sum, layout.Stoppable(ctx, f))
	if err != nil {
		return image{}, err
	}
	layer := layout.Descriptor{MediaType: layout.TypeSquashfs, Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Size: size}
	config, err := json.Marshal(map[string]any{
		"os": "linux", "config": struct{}{}, "rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.Digest}},
	})
	if err != nil {
		return image{}, err
	}
	img, err := w.compose(config, []layout.Descriptor{layer})
	if err != nil || w.have(img.m) {
		return img, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return image{}, err
	}
	_, err = w.layout.Receive(layout.Stoppable(ctx, f), layer.Digest)
	return img, err
}

// compose stores the configuration of an image and makes its manifest.
func (w *loader) compose(config []byte, layers []layout.Descriptor) (image, error) {
	digest, err := w.layout.PutBlob(config)
	if err != nil {
		return image{}, err
	}
	m, err := layout.Compose(layout.Descriptor{MediaType: layout.TypeConfig, Digest: digest, Size: int64(len(config))}, layers)
	if err != nil {
		return image{}, err
	}
	if _, err := w.layout.PutBlob(m.Raw); err != nil {
		return image{}, err
	}
	if want := w.o.Ref.Digest; want != "" && want != m.Digest {
		return image{}, changed(want, []string{m.Digest})
	}
	return image{layout.Descriptor{MediaType: layout.TypeManifest, Digest: m.Digest, Size: m.Size()}, m}, nil
}

// changed is the error for a file that has another image than it is said to have.
func changed(want string, has []string) error {
	return fault.WithHint(fmt.Errorf("there is no image %s in it; there is %s", want, list(has)),
		"if the file was exchanged after the job was submitted, submit the job again")
}

// record names the image in index.json.
func (w *loader) record(ctx context.Context, img image, stamp string) (Result, error) {
	res := Result{Digest: img.top.Digest, Manifest: img.m.Digest}
	d := layout.Descriptor{MediaType: img.top.MediaType, Digest: img.top.Digest, Size: img.top.Size}
	d.Annotations = map[string]string{layout.RefName: w.o.Name}
	if stamp != "" {
		d.Annotations[layout.Source] = stamp
	}
	if index, err := w.layout.Index(); err == nil {
		if old := index.Find(w.o.Name); old != nil && old.Digest == d.Digest && old.Annotations[layout.Source] == stamp {
			return res, nil
		}
	}
	return res, w.layout.Update(ctx, func(x *layout.Index) { x.Set(w.o.Name, d) })
}

// explain turns an error into what the reader needs to know.
func explain(err error, o Options) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.WithHint(fmt.Errorf("no space left for the image cache %s", o.Layout), `"brolga images" and "brolga rmi" show and remove what is in it`)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the file ends in the middle: it was not copied or written as a whole")
	}
	return err
}

// list joins names for a message, some of them if there are many.
func list(names []string) string {
	const most = 8
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	text := ""
	for i, name := range names {
		switch {
		case i == most:
			return fmt.Sprintf("%s and %d more", text, len(names)-most)
		case i > 0:
			text += ", "
		}
		text += fmt.Sprintf("%.100s", name)
	}
	if text == "" {
		return "none"
	}
	return text
}
