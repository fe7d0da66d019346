// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// pruneAge is how old a blob must be to be removed although no image refers to
// it: a pull stores blobs before it names the image.
const pruneAge = 24 * time.Hour

// Prune removes the images for which gone returns true from the index, and the
// blobs that no image refers to any more.
func (l *Layout) Prune(ctx context.Context, gone func(Descriptor) bool) error {
	var kept, removed []Descriptor
	err := l.Update(ctx, func(x *Index) {
		x.Manifests = slices.DeleteFunc(x.Manifests, func(d Descriptor) bool {
			if gone(d) {
				removed = append(removed, d)
				return true
			}
			return false
		})
		kept = x.Manifests
	})
	if err != nil || len(removed) == 0 {
		return err
	}
	keep := map[string]bool{}
	for _, d := range kept {
		l.reach(d.Digest, keep)
	}
	drop := map[string]bool{}
	for _, d := range removed {
		l.reach(d.Digest, drop)
	}
	return l.sweep(keep, drop)
}

// reach adds to seen all blobs that the image with the given digest needs.
func (l *Layout) reach(digest string, seen map[string]bool) {
	if seen[digest] {
		return
	}
	seen[digest] = true
	raw, err := l.ReadBlob(digest, MaxManifest)
	if err != nil {
		return // of another platform, or damaged
	}
	m, index, err := Parse(raw)
	switch {
	case err != nil:
	case index != nil:
		for _, d := range index.Manifests {
			l.reach(d.Digest, seen)
		}
	default:
		for _, d := range m.Blobs() {
			seen[d.Digest] = true
		}
	}
}

// sweep removes blobs that are in drop, or that are old and nobody's.
func (l *Layout) sweep(keep, drop map[string]bool) error {
	entries, err := os.ReadDir(l.path("blobs", "sha256"))
	if err != nil {
		return fmt.Errorf("remove blobs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		digest := "sha256:" + e.Name()
		if keep[digest] || (!drop[digest] && !isOld(e)) || (!ref.IsDigest(digest) && !isOld(e)) {
			continue
		}
		err := os.Remove(filepath.Join(l.path("blobs", "sha256"), e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove blobs: %w", err))
		}
	}
	return errors.Join(errs...)
}

func isOld(e fs.DirEntry) bool {
	info, err := e.Info()
	return err == nil && time.Since(info.ModTime()) > pruneAge
}
