// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// errDamaged is the error of a verification that found something.
var errDamaged = errors.New("damaged images")

// runVerify reads images of the user's cache, or for root and the store owner of
// the stores, and compares them with their digests. Without names it reads all.
func runVerify(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	ofStore := fs.Bool("store", false, "verify the store, as root or its owner")
	repair := fs.Bool("repair", false, "remove what is damaged: it is fetched or converted again when it is needed")
	if err := v.parse(fs, args, 0, math.MaxInt); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	match, err := matchAny(fs.Args())
	if err != nil {
		return err
	}
	check, notFound := verifyCache, layout.ErrNotFound
	if *ofStore {
		check, notFound = verifyStores, store.ErrNotFound
	}
	result := verified{repair: *repair}
	if err := check(ctx, conf, match, &result); err != nil {
		return err
	}
	if result.images == 0 && fs.NArg() > 0 {
		return fmt.Errorf("verify: %w", notFound)
	}
	return result.err()
}

// matchAny returns a function that says whether one of the names means an image;
// no names mean all.
func matchAny(names []string) (func(reference, digest string) bool, error) {
	var all []func(reference, digest string) bool
	for _, name := range names {
		match, err := matcher(name)
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", printable(ref.Shown(name)), err)
		}
		all = append(all, match)
	}
	return func(reference, digest string) bool {
		for _, match := range all {
			if match(reference, digest) {
				return true
			}
		}
		return len(all) == 0
	}, nil
}

// verified counts what was found.
type verified struct {
	repair      bool
	images, bad int
	unrepaired  []error
}

// add prints the result for an image; mend removes what is damaged.
func (r *verified) add(name, digest string, problem error, mend func() error) {
	r.images++
	if problem == nil {
		fmt.Printf("ok      %s %s\n", printable(name), digest)
		return
	}
	r.bad++
	fmt.Printf("damaged %s %s: %s\n", printable(name), digest, fault.Line(problem))
	if !r.repair {
		return
	}
	if err := mend(); err != nil {
		r.unrepaired = append(r.unrepaired, fmt.Errorf("repair %s: %w", printable(name), err))
	} else {
		fmt.Printf("removed what is damaged of %s\n", printable(name))
	}
}

func (r *verified) err() error {
	switch {
	case r.repair:
		return errors.Join(r.unrepaired...)
	case r.bad > 0:
		return fault.WithHint(fmt.Errorf("verify: %w: %d of %d", errDamaged, r.bad, r.images),
			"--repair removes what is damaged, and it is fetched or converted again when it is needed")
	}
	return nil
}

func verifyCache(ctx context.Context, conf config.Config, match func(string, string) bool, result *verified) error {
	l, err := openCache(conf)
	if errors.Is(err, layout.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	index, err := l.Index()
	if err != nil && !errors.Is(err, layout.ErrNotFound) {
		return err
	}
	for _, d := range index.Manifests {
		name := d.Annotations[layout.RefName]
		if layout.Signed(name) != "" || !match(name, d.Digest) {
			continue // signatures verify themselves
		}
		damaged, err := l.Verify(ctx, d.Digest)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		result.add(name, d.Digest, err, func() error { return l.RemoveBlobs(damaged) })
	}
	return verifyStore(ctx, openOwn(l), match, result)
}

func verifyStores(ctx context.Context, conf config.Config, match func(string, string) bool, result *verified) error {
	stores, err := openStores(conf)
	if err != nil {
		return err
	}
	for _, st := range stores {
		if err := verifyStore(ctx, st, match, result); err != nil {
			return err
		}
	}
	return nil
}

// verifyStore compares images of a store with their digests. There may be no such
// store.
func verifyStore(ctx context.Context, st *store.Store, match func(string, string) bool, result *verified) error {
	all, err := listIfThere(st)
	if err != nil {
		return err
	}
	for _, m := range all {
		if !match(m.Name, m.Digest) {
			continue
		}
		err := st.Verify(ctx, m)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, store.ErrNotFound) {
			continue // removed meanwhile
		}
		result.add(m.Name, m.Digest, err, func() error { return st.Remove(ctx, m.Digest) })
	}
	return nil
}
