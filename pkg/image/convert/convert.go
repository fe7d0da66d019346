// SPDX-License-Identifier: Apache-2.0

// Package convert adds images to a store: it is what "brolga convert" and "brolga squash" do.
//
// Convert runs as the store owner. It holds the lease of the image, keeps to the user's
// share, and publishes the result. It reads no more of what the user wrote than the manifest
// and signatures. All else is read by Squash, in a process of its own that reaches one file
// of the store.
package convert

import (
	"context"
	"errors"
	"time"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/lease"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// Order is what the store is told of an image beside its content.
type Order struct {
	Name ref.Ref
	// User is the name of the user who wants the image, for lists and the user's share.
	User string
	// OneOwner says that all files belong to root.
	OneOwner bool
	Platform layout.Platform
	// ConfigPath is the site's configuration file, or empty.
	ConfigPath string
}

// Convert adds the image with that manifest to the store, unless another process does. When
// that one took over because this one was stopped for a while, its result is waited
// for. The manifest, the configuration and the layers are descriptors of this process.
func Convert(ctx context.Context, conf config.Config, stores store.Tiers, of Order, digest string) error {
	st, err := stores.ForNew()
	if err != nil {
		return err
	}
	if err := st.Init(); err != nil {
		return err
	}
	in, err := readManifest(digest)
	if err != nil {
		return err
	}
	for {
		held, err := st.Lease(ctx, digest, func() bool { return st.Has(digest) })
		if errors.Is(err, lease.ErrDone) {
			return nil
		}
		if err != nil {
			return err
		}
		err = produce(held.Context(), conf, st, in, of)
		lost := held.Lost()
		if err := errors.Join(err, held.Close()); err == nil || !lost {
			return err
		}
	}
}

// produce makes the image, under its lease.
func produce(ctx context.Context, conf config.Config, st *store.Store, in input, of Order) error {
	digest := in.Manifest.Digest
	if st.Has(digest) { // since before the lease was free
		return nil
	}
	limits, err := limitsOf(conf, st, of.User)
	if err == nil {
		err = limits.before(st)
	}
	if err != nil {
		return err
	}
	draft, err := st.Draft(digest)
	if err != nil {
		return err
	}
	defer draft.Discard()
	out, err := inSandbox(ctx, conf, of, in, draft.Path(), limits.most())
	if err == nil {
		err = limits.after(ctx, st, draft)
	}
	if err != nil {
		return limits.explain(err)
	}
	meta := of.meta()
	meta.Platform, meta.Config, meta.Passwd, meta.Group = out.Platform, out.Config, out.Passwd, out.Group
	if err := draft.Publish(meta); err != nil {
		return err
	}
	if limits.store > 0 {
		// A failure to remove others is none of this image.
		_ = st.CollectSometimes(ctx, limits.store, limits.share.Keep)
	}
	return nil
}

// meta returns what the store keeps of the order.
func (o Order) meta() store.Meta {
	r := o.Name
	if r.Tag != "" {
		r.Digest = "" // the job's, of an index perhaps; the image has its own
	}
	return store.Meta{Name: r.String(), User: o.User, Created: time.Now().UTC().Truncate(time.Second)}
}
