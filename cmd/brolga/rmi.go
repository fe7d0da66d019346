// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// runRmi removes images from the user's cache, or, for root and the store
// owner, from the store. An image is named by reference or digest. Steps that
// use an image keep it.
func runRmi(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	ofStore := fs.Bool("store", false, "remove from the store, as root or its owner")
	force := fs.Bool("force", false, "an image that is not there is no error")
	fs.BoolVar(force, "f", false, "short for --force")
	if err := v.parse(fs, args, 1, math.MaxInt); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	remove := removeCached
	if *ofStore {
		remove = removeStored
	}
	var errs []error
	for _, name := range fs.Args() {
		err := remove(ctx, conf, name)
		if *force && (errors.Is(err, layout.ErrNotFound) || errors.Is(err, store.ErrNotFound)) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", printable(ref.Shown(name)), err))
		}
	}
	return errors.Join(errs...)
}

// partOfDigest is a digest, or as much of its beginning as brolga images prints.
var partOfDigest = regexp.MustCompile(`^sha256:[0-9a-f]{12,64}$`)

// matcher returns a function that says whether name means an image.
func matcher(name string) (func(reference, digest string) bool, error) {
	if partOfDigest.MatchString(name) {
		return func(_, digest string) bool { return strings.HasPrefix(digest, name) }, nil
	}
	r, err := parseImage(name)
	if err != nil {
		return nil, err
	}
	return func(reference, _ string) bool { return reference == r.String() }, nil
}

func removeStored(ctx context.Context, conf config.Config, name string) error {
	match, err := matcher(name)
	if err != nil {
		return err
	}
	stores, err := openStores(conf)
	if err != nil {
		return err
	}
	found := false
	for _, st := range stores {
		all, err := st.List()
		if err != nil {
			return err
		}
		for _, m := range all {
			if match(m.Name, m.Digest) {
				found = true
				if err := st.Remove(ctx, m.Digest); err != nil {
					return err
				}
			}
		}
	}
	if !found {
		return store.ErrNotFound
	}
	return nil
}

func removeCached(ctx context.Context, conf config.Config, name string) error {
	match, err := matcher(name)
	if err != nil {
		return err
	}
	l, err := openCache(conf)
	if err != nil {
		return err
	}
	found := false
	err = l.Prune(ctx, func(d layout.Descriptor) bool {
		gone := match(d.Annotations[layout.RefName], d.Digest)
		found = found || gone
		return gone
	})
	if err == nil && !found {
		err = layout.ErrNotFound
	}
	if err != nil {
		return err
	}
	return sweepOwn(ctx, l, false, func(expire.Removed) {})
}
