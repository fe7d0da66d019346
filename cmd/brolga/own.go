// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// ownStore is where a user's own converted images are, in the user's cache: those
// that brolga run has made because it may not read the site's.
func ownStore(cache string) string { return filepath.Join(cache, "squashfs") }

// openOwn returns the store in the cache of the user who calls. It may not exist.
func openOwn(l *layout.Layout) *store.Store {
	return store.New(ownStore(l.Dir()), identity.User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
}

// listIfThere returns what is in a store that may not exist.
func listIfThere(st *store.Store) ([]store.Meta, error) {
	all, err := st.List()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return all, err
}

// sweepOwn removes the converted images of which the cache has no manifest any
// more.
func sweepOwn(ctx context.Context, l *layout.Layout, dry bool, tell func(expire.Removed)) error {
	own := openOwn(l)
	all, err := listIfThere(own)
	errs := []error{err}
	for _, m := range all {
		if _, err := l.Stat(m.Digest); err == nil {
			continue
		}
		if !dry {
			if err := own.Remove(ctx, m.Digest); err != nil && !errors.Is(err, store.ErrNotFound) {
				errs = append(errs, err)
				continue
			}
		}
		name, _, _ := strings.Cut(m.Name, "@sha256:") // files are noted with theirs
		tell(expire.Removed{What: "converted image", Name: name + "@" + m.Digest, Size: m.Size})
	}
	return errors.Join(errs...)
}

// collectOwn removes converted images as limits say, and what conversions have left.
func collectOwn(ctx context.Context, l *layout.Layout, limits expire.Limits, tell func(expire.Removed)) error {
	if _, err := os.Lstat(ownStore(l.Dir())); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(
		sweepOwn(ctx, l, limits.DryRun, tell),
		openOwn(l).Collect(ctx, limits, func(r expire.Removed) {
			r.What = "converted " + r.What
			tell(r)
		}),
	)
}
