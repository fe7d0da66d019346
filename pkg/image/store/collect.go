// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/image/lease"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// stored is a file of an image, or both.
type stored struct {
	hex  string
	size int64
	used time.Time
}

// Collect removes what is left of producers that died and the images that were
// not used for the longest time, as l says: none that is in use on this node, and
// none while another process produces or removes it. It tells of each what was
// removed. It is for the store owner.
func (s *Store) Collect(ctx context.Context, l expire.Limits, tell func(expire.Removed)) error {
	errs := []error{s.removeLeft(l, tell)}
	images, parts, err := s.scan()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, p := range parts {
		_, err := s.collect(ctx, p, part, l, tell)
		errs = append(errs, err)
	}
	var total int64
	for _, img := range images {
		total += img.size
	}
	slices.SortFunc(images, func(a, b stored) int { return a.used.Compare(b.used) })
	busy := attached()
	for _, img := range images {
		if l.Keep(total, img.used) {
			break
		}
		if busy[img.hex] {
			continue
		}
		freed, err := s.collect(ctx, img, image, l, tell)
		errs = append(errs, err)
		total -= freed
	}
	return errors.Join(errs...)
}

// collectEvery is how often [Store.CollectSometimes] does something.
const collectEvery = 10 * time.Minute

// CollectSometimes is Collect for who has just added an image. A store may have
// many, so not everyone who adds one looks at all of them.
func (s *Store) CollectSometimes(ctx context.Context, maxSize int64, unused time.Duration) error {
	stamp := filepath.Join(s.dir, "collected")
	if st, err := os.Stat(stamp); err == nil && time.Since(st.ModTime()).Abs() < collectEvery {
		return nil
	}
	now := time.Now()
	if err := errors.Join(os.WriteFile(stamp, nil, 0o600), os.Chtimes(stamp, now, now)); err != nil {
		return err
	}
	return s.Collect(ctx, expire.Limits{MaxSize: maxSize, Unused: unused}, func(expire.Removed) {})
}

// What collect removes.
const (
	image = "image"
	part  = "half an image"
)

// collect removes an image, or what there is of it, unless someone has its lease.
func (s *Store) collect(ctx context.Context, img stored, what string, l expire.Limits, tell func(expire.Removed)) (freed int64, err error) {
	if lease.Held(s.leasePath(img.hex)) {
		return 0, nil
	}
	name := "sha256:" + img.hex
	if meta, err := s.readMeta(name, img.hex); err == nil && meta.Name != "" {
		name = meta.Name + "@" + name
	}
	if l.DryRun {
		tell(expire.Removed{What: what, Name: name, Size: img.size})
		return img.size, nil
	}
	err = s.removeIf(ctx, img.hex, func() bool {
		// Someone may have used it, or made it, since we looked.
		_, used, err := s.Stat("sha256:" + img.hex)
		if what == image && (err != nil || !used.Equal(img.used)) || what == part && err == nil {
			return false
		}
		tell(expire.Removed{What: what, Name: name, Size: img.size})
		freed = img.size
		return true
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("remove %s: %w", name, err)
	}
	return freed, nil
}

// scan lists the images and, apart from them, what is only a part of one.
func (s *Store) scan() (images, parts []stored, err error) {
	entries, err := os.ReadDir(s.path(""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, s.Check()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list the store: %w", err)
	}
	all := map[string]*stored{}
	exts := map[string]int{}
	for _, e := range entries {
		hex, ext, _ := strings.Cut(e.Name(), ".")
		info, err := e.Info()
		if err != nil || !ref.IsDigest("sha256:"+hex) {
			continue // gone, or a draft
		}
		img := all[hex]
		if img == nil {
			img = &stored{hex: hex}
			all[hex] = img
		}
		exts[hex]++
		img.size += info.Size()
		if ext == "json" {
			img.used = info.ModTime()
		}
	}
	for hex, img := range all {
		if exts[hex] == 2 {
			images = append(images, *img)
		} else {
			parts = append(parts, *img)
		}
	}
	return images, parts, nil
}

// removeLeft removes drafts and leases of processes that died.
func (s *Store) removeLeft(l expire.Limits, tell func(expire.Removed)) error {
	now := s.now()
	left, err := lease.Sweep(filepath.Join(s.dir, "lease"), now.Add(-expire.LeftAge), l.DryRun)
	errs := []error{err}
	for _, name := range left {
		tell(expire.Removed{What: "lease of a process that ended", Name: name})
	}
	drafts, _ := filepath.Glob(s.path(".tmp-*"))
	formats, _ := filepath.Glob(filepath.Join(s.dir, ".tmp-*"))
	for _, path := range append(drafts, formats...) {
		st, err := os.Lstat(path)
		of, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), ".tmp-"), "-")
		isDead := ref.IsDigest("sha256:"+of) && !lease.Held(s.leasePath(of))
		if err != nil || !isDead && now.Sub(st.ModTime()) < expire.LeftAge {
			continue
		}
		if !l.DryRun {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		tell(expire.Removed{What: "unfinished image", Name: filepath.Base(path), Size: st.Size()})
	}
	return errors.Join(errs...)
}

// now is the time by the clock of the file system, or, where that is full, by this
// node's.
func (s *Store) now() time.Time {
	f, err := os.CreateTemp(s.dir, ".tmp-now-")
	if err != nil {
		return time.Now()
	}
	defer os.Remove(f.Name())
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return time.Now()
	}
	return st.ModTime()
}

// attached returns the digests of the images that loop devices of this node show.
func attached() map[string]bool {
	busy := map[string]bool{}
	devices, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, path := range devices {
		if text, err := os.ReadFile(path); err == nil {
			hex, _, _ := strings.Cut(filepath.Base(string(text)), ".squashfs")
			busy[hex] = true
		}
	}
	return busy
}
