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

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/image/lease"
)

// Prune removes the images for which gone returns true from the index, with their
// signatures, and the blobs that no image refers to any more.
func (l *Layout) Prune(ctx context.Context, gone func(Descriptor) bool) error {
	kept, removed, err := l.drop(ctx, gone)
	if err != nil || len(removed) == 0 {
		return err
	}
	return l.sweep(l.reachAll(kept), l.reachAll(removed), func(expire.Removed) {}, false)
}

// drop removes images from the index. Where there is no space left for a new one,
// their blobs make some by going first: an image without blobs is pulled again.
func (l *Layout) drop(ctx context.Context, gone func(Descriptor) bool) (kept, removed []Descriptor, err error) {
	forget := func(x *Index) {
		removed = nil
		x.Manifests = slices.DeleteFunc(x.Manifests, func(d Descriptor) bool {
			if gone(d) {
				removed = append(removed, d)
				return true
			}
			return false
		})
		removed = append(removed, l.dropSignatures(x)...)
		kept = x.Manifests
	}
	err = l.Update(ctx, forget)
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return kept, removed, err
	}
	index, err := l.Index()
	if err != nil {
		return nil, nil, err
	}
	forget(&index)
	if err := l.sweep(l.reachAll(kept), l.reachAll(removed), func(expire.Removed) {}, false); err != nil {
		return nil, nil, err
	}
	return kept, removed, l.Update(ctx, forget)
}

// Collect removes the images that were not used for the longest time, as limits
// says, and what pulls that were killed have left. It tells of each what was
// removed.
func (l *Layout) Collect(ctx context.Context, limits expire.Limits, tell func(expire.Removed)) error {
	index, err := l.Index()
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("collect garbage: %w", err)
	}
	sizes, err := l.sizes()
	if err != nil {
		return fmt.Errorf("collect garbage: %w", err)
	}
	var kept, signatures []Descriptor // the latter go with their images
	for _, d := range index.Manifests {
		if Signed(d.Annotations[RefName]) == "" {
			kept = append(kept, d)
		} else {
			signatures = append(signatures, d)
		}
	}
	slices.SortStableFunc(kept, func(a, b Descriptor) int { return l.Used(a).Compare(l.Used(b)) })
	var gone []Descriptor
	for total := sum(sizes); len(kept) > 0 && !limits.Keep(total, l.Used(kept[0])); {
		d := kept[0]
		gone, kept = append(gone, d), kept[1:]
		left := sum(sizes) - sumOf(sizes, l.reachAll(gone), l.reachAll(kept))
		tell(expire.Removed{What: "image", Name: d.Annotations[RefName], Size: total - left})
		total = left
	}
	kept = append(kept, signatures...)
	if len(gone) > 0 && !limits.DryRun {
		isGone := func(d Descriptor) bool {
			return slices.ContainsFunc(gone, func(g Descriptor) bool {
				return g.Digest == d.Digest && g.Annotations[RefName] == d.Annotations[RefName]
			})
		}
		if kept, gone, err = l.drop(ctx, isGone); err != nil {
			return err
		}
	}
	return errors.Join(
		l.sweep(l.reachAll(kept), l.reachAll(gone), tell, limits.DryRun),
		l.removeLeases(tell, limits.DryRun),
	)
}

// sizes returns those of all blobs.
func (l *Layout) sizes() (map[string]int64, error) {
	entries, err := os.ReadDir(l.path("blobs", "sha256"))
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			sizes["sha256:"+e.Name()] = info.Size()
		}
	}
	return sizes, nil
}

func sum(sizes map[string]int64) (total int64) {
	for _, n := range sizes {
		total += n
	}
	return total
}

// sumOf adds up what is in blobs and not in but.
func sumOf(sizes map[string]int64, blobs, but map[string]bool) (total int64) {
	for digest := range blobs {
		if !but[digest] {
			total += sizes[digest]
		}
	}
	return total
}

// removeLeases removes the leases of processes that died.
func (l *Layout) removeLeases(tell func(expire.Removed), dry bool) error {
	left, err := lease.Sweep(l.path("lease"), time.Now().Add(-expire.LeftAge), dry)
	for _, name := range left {
		tell(expire.Removed{What: "lease of a process that ended", Name: name})
	}
	return err
}

// reachAll returns the blobs that the images need.
func (l *Layout) reachAll(images []Descriptor) map[string]bool {
	seen := map[string]bool{}
	for _, d := range images {
		l.reach(d.Digest, seen)
	}
	return seen
}

// dropSignatures removes signatures of images that the index does not have any
// more, and returns them.
func (l *Layout) dropSignatures(x *Index) (removed []Descriptor) {
	images := map[string]bool{}
	for _, d := range x.Manifests {
		if Signed(d.Annotations[RefName]) == "" {
			l.reach(d.Digest, images)
		}
	}
	x.Manifests = slices.DeleteFunc(x.Manifests, func(d Descriptor) bool {
		signed := Signed(d.Annotations[RefName])
		if signed == "" || images[signed] {
			return false
		}
		removed = append(removed, d)
		return true
	})
	return removed
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
	case err != nil: // no image, so perhaps signatures
		for _, d := range SignatureBlobs(raw) {
			seen[d.Digest] = true
		}
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

// sweep removes blobs that are in drop, or that are old and nobody's. Of the
// latter it tells.
func (l *Layout) sweep(keep, drop map[string]bool, tell func(expire.Removed), dry bool) error {
	entries, err := os.ReadDir(l.path("blobs", "sha256"))
	if err != nil {
		return fmt.Errorf("remove blobs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		digest := "sha256:" + e.Name()
		info, err := e.Info()
		if keep[digest] || err != nil || !drop[digest] && time.Since(info.ModTime()) < expire.LeftAge {
			continue
		}
		if !drop[digest] {
			tell(expire.Removed{What: "part of no image", Name: e.Name(), Size: info.Size()})
		}
		if dry {
			continue
		}
		err = os.Remove(filepath.Join(l.path("blobs", "sha256"), e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove blobs: %w", err))
		}
	}
	return errors.Join(errs...)
}

// touchEvery is how exact the time of the last use is.
const touchEvery = time.Hour

// Used returns when an image was last run or pulled, to an hour or so.
func (l *Layout) Used(d Descriptor) time.Time {
	used, _ := time.Parse(time.RFC3339Nano, d.Annotations[PulledAt])
	if path, err := l.BlobPath(d.Digest); err == nil {
		if st, err := os.Lstat(path); err == nil && st.ModTime().After(used) {
			used = st.ModTime()
		}
	}
	return used
}

// Touch notes that the image with the digest, of its index or manifest, is used.
// Where the cache cannot be written it is let be.
func (l *Layout) Touch(digest string) {
	path, err := l.BlobPath(digest)
	if err != nil {
		return
	}
	if st, err := os.Lstat(path); err == nil && time.Since(st.ModTime()).Abs() > touchEvery {
		now := unix.Timespec{Nsec: unix.UTIME_NOW}
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
	}
}
