// SPDX-License-Identifier: Apache-2.0

// Package pull fetches images from registries into a user's image cache.
//
// It runs as the user, with the user's credentials, which package credential
// finds. Mirrors that the site names are tried before a registry. What is stored
// is verified by digest and complete, or is not there; a download that broke off
// is resumed, from another place if need be.
//
// Requests are few, since registries count them. A tag costs one request when
// the cache has its image already. Processes that share a cache, on one node or
// many, fetch an image once: one does and the others wait for it.
//
// This is the only package that speaks to registries. The helper on compute
// nodes does not link it.
package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/lease"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// Options says what to pull, where to, and how.
type Options struct {
	Ref    ref.Ref
	Layout string // directory of the image cache, made when it is missing
	// Have says whether the image with this manifest is at hand in another form,
	// so that its layers are not needed. May be nil.
	Have func(manifestDigest string) bool
	// IfMissing takes a tag that the cache knows to mean what it meant, and asks
	// no registry about it.
	IfMissing bool
	// Offline asks no registry at all: what the cache lacks is an error.
	Offline bool
	// Platform is what the image is to run on; zero is this machine's.
	Platform layout.Platform
	// Credentials finds what to log in with, as Ref.User; nil is nothing.
	Credentials *credential.Finder
	// Confine, if set, takes from this process what a pull does not need. It is called
	// when the cache does not do, all credentials are found and nothing has been read
	// from a registry: credential helpers are the user's programs, and need the user's
	// rights.
	Confine func() error
	// Registries has what the site says of registries.
	Registries config.Registries
	// Policy says which images may be pulled; the zero Policy allows all.
	Policy Policy
	// Progress is told how far the pull is; nil is quiet.
	Progress *Progress
	// Pause is how long to wait before the first retry of a request; later ones
	// wait longer. Zero is a good value for real registries.
	Pause time.Duration
	// Stall is how long a transfer may go with next to nothing; zero is a good
	// value.
	Stall time.Duration
}

// Result is what was pulled.
type Result struct {
	Digest   string // of what the name points to, an index or a manifest
	Manifest string // digest of the manifest for this platform
}

// checks is how many cached blobs are read at once.
const checks = 4

// Pull makes sure that the cache has the image o.Ref as the registry has it
// now. A digest that the cache has needs no registry.
func Pull(ctx context.Context, o Options) (Result, error) {
	res, err := pull(ctx, o)
	o.Progress.finish()
	if err != nil {
		return Result{}, fmt.Errorf("pull %s: %w", o.Ref, explain(err, o))
	}
	return res, nil
}

func pull(ctx context.Context, o Options) (Result, error) {
	if err := o.Registries.For(o.Ref.Registry).Refusal(); err != nil {
		return Result{}, err
	}
	l, err := layout.Create(o.Layout)
	if err != nil {
		return Result{}, err
	}
	p := &puller{o: o, layout: l, platform: o.Platform, places: placesOf(o)}
	if p.platform == (layout.Platform{}) {
		p.platform = layout.Host()
	}
	known := o.Ref.Digest != "" || o.IfMissing || o.Offline // what the name means cannot change
	if known {
		if res, ok := p.local(); ok {
			return res, errors.Join(p.record(ctx, res), p.accept(ctx))
		}
	}
	if o.Offline {
		return Result{}, layout.NotCached(o.Ref.String())
	}
	before := p.stamp()
	held, err := lease.Acquire(ctx, l.LeasePath(leaseName(o.Ref)), lease.Options{
		Waited: func() { o.Progress.say("waiting for another pull of %s", o.Ref) },
	})
	if err != nil {
		return Result{}, err
	}
	defer held.Close()
	// Another process may just have done it.
	if known || p.stamp() != before {
		if res, ok := p.local(); ok {
			return res, errors.Join(p.record(ctx, res), p.accept(ctx))
		}
	}
	if err := p.confine(ctx); err != nil {
		return Result{}, err
	}
	return p.fetch(ctx)
}

// confine finds the credentials for all places, as long as that is possible, and confines
// this process, unless it is.
func (p *puller) confine(ctx context.Context) error {
	if p.o.Confine == nil || p.confined {
		return nil
	}
	p.confined = true
	for _, pl := range p.places {
		pl.login(ctx, p.o)
	}
	return p.o.Confine()
}

func leaseName(r ref.Ref) string {
	sum := sha256.Sum256([]byte(r.String()))
	return "pull-" + hex.EncodeToString(sum[:16])
}

type puller struct {
	o        Options
	layout   *layout.Layout
	platform layout.Platform
	places   []*place // that are left to try
	fetched  bool     // a registry was asked what the name means
	confined bool
	top      layout.Descriptor
	image    layout.Manifest // what top leads to on this platform
	// progress is o.Progress while layers are fetched; the rest is too small.
	progress *Progress
}

// local returns the image if the cache has all of it.
func (p *puller) local() (Result, bool) {
	top, err := p.layout.Lookup(p.o.Ref)
	if err != nil {
		return Result{}, false
	}
	m, err := p.layout.Manifest(top.Digest, p.platform)
	if err != nil || !p.layout.Has(m.Config) || (!p.have(m) && !p.layout.Complete(m)) {
		return Result{}, false
	}
	p.top, p.image = top, m
	return Result{Digest: top.Digest, Manifest: m.Digest}, true
}

func (p *puller) have(m layout.Manifest) bool { return p.o.Have != nil && p.o.Have(m.Digest) }

// stamp returns when the tag was last pulled, "" for never.
func (p *puller) stamp() string {
	index, err := p.layout.Index()
	if err != nil {
		return ""
	}
	if d := index.Find(p.o.Ref.String()); d != nil {
		return d.Annotations[layout.PulledAt]
	}
	return ""
}

// fetch brings the image from the registry.
func (p *puller) fetch(ctx context.Context) (Result, error) {
	m, err := p.manifest(ctx)
	if err != nil {
		return Result{}, err
	}
	p.image = m
	if err := p.accept(ctx); err != nil {
		return Result{}, err
	}
	if err := p.blobs(ctx, []layout.Descriptor{m.Config}); err != nil {
		return Result{}, err
	}
	if err := p.checkPlatform(m); err != nil {
		return Result{}, err
	}
	if !p.have(m) {
		p.progress = p.o.Progress
		if err := p.blobs(ctx, m.Layers); err != nil {
			return Result{}, err
		}
	}
	res := Result{Digest: p.top.Digest, Manifest: m.Digest}
	return res, p.record(ctx, res)
}

// manifest fetches the manifest for this platform, and the indexes that lead to
// it, as far as the cache does not have them.
func (p *puller) manifest(ctx context.Context) (layout.Manifest, error) {
	var raw []byte
	i, err := p.somewhere(ctx, p.places, func(reg *registry) (err error) {
		raw, err = p.resolve(ctx, reg)
		return err
	})
	if err != nil {
		return layout.Manifest{}, err
	}
	p.places, p.fetched = p.places[i:], true // those before do not have it
	for depth := 0; ; depth++ {
		digest, err := p.layout.PutBlob(raw)
		if err != nil {
			return layout.Manifest{}, err
		}
		m, index, err := layout.Parse(raw)
		if err != nil {
			return layout.Manifest{}, fmt.Errorf("read manifest %s: %w", digest, err)
		}
		if depth == 0 {
			p.top = layout.Descriptor{MediaType: mediaType(raw, index), Digest: digest, Size: int64(len(raw))}
		}
		if index == nil {
			return m, nil
		}
		if depth == 2 {
			return layout.Manifest{}, fmt.Errorf("read index %s: indexes in indexes in indexes", digest)
		}
		d, err := index.Select(p.platform)
		if err != nil {
			return layout.Manifest{}, err
		}
		if raw, err = p.layout.ReadBlob(d.Digest, layout.MaxManifest); err != nil {
			_, err = p.somewhere(ctx, p.places, func(reg *registry) (err error) {
				raw, err = reg.manifest(ctx, d.Digest)
				return err
			})
			if err != nil {
				return layout.Manifest{}, err
			}
		}
	}
}

// resolve returns the index or manifest that the name points to, with one
// request: it asks for the digest alone where the cache may have the rest.
func (p *puller) resolve(ctx context.Context, reg *registry) ([]byte, error) {
	r := p.o.Ref
	if r.Digest != "" {
		return reg.manifest(ctx, r.Digest)
	}
	if d, err := p.layout.Lookup(r); err == nil {
		if raw, err := p.layout.ReadBlob(d.Digest, layout.MaxManifest); err == nil {
			digest, err := reg.digest(ctx, r.Tag)
			if err != nil {
				return nil, err
			}
			if digest == d.Digest {
				return raw, nil
			}
		}
	}
	return reg.manifest(ctx, r.Tag)
}

func mediaType(raw []byte, index *layout.Index) string {
	var doc struct{ MediaType string }
	_ = json.Unmarshal(raw, &doc) // has been parsed before
	switch {
	case doc.MediaType != "":
		return doc.MediaType
	case index != nil:
		return layout.TypeIndex
	}
	return layout.TypeManifest
}

// checkPlatform refuses an image for another machine where no index said so.
func (p *puller) checkPlatform(m layout.Manifest) error {
	raw, err := p.layout.ReadBlob(m.Config.Digest, layout.MaxManifest)
	if err != nil {
		return err
	}
	return p.platform.Check(raw)
}

// blobs fetches those blobs that the cache does not have, or not whole. The
// latter is how a damaged cache is repaired: root's conversion would refuse what
// is in it.
func (p *puller) blobs(ctx context.Context, all []layout.Descriptor) error {
	var cached, missing []layout.Descriptor
	seen := map[string]bool{}
	for _, d := range all {
		switch {
		case seen[d.Digest]:
		case p.layout.Has(d):
			cached = append(cached, d)
		default:
			missing = append(missing, d)
		}
		seen[d.Digest] = true
	}
	if err := each(ctx, cached, checks, p.dropDamaged); err != nil {
		return err
	}
	for _, d := range cached {
		if !p.layout.Has(d) {
			missing = append(missing, d)
		}
	}
	p.progress.begin(missing)
	parallel := 0 // each registry has its own limit
	for _, pl := range p.places {
		parallel = max(parallel, pl.site.Parallel)
	}
	return each(ctx, missing, parallel, func(ctx context.Context, d layout.Descriptor) error {
		err := p.blob(ctx, d)
		if err == nil {
			p.progress.done(d)
		}
		return err
	})
}

// each calls f for all blobs, some at a time. The first failure ends all.
func each(ctx context.Context, blobs []layout.Descriptor, parallel int, f func(context.Context, layout.Descriptor) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for _, d := range blobs {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			if err := f(ctx, d); err != nil {
				cancel(err) // the first one counts
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// means says whether a name points to a digest.
func means(index layout.Index, name, digest string) bool {
	d := index.Find(name)
	return d != nil && d.Digest == digest
}

// record names the image in index.json.
func (p *puller) record(ctx context.Context, res Result) error {
	name := p.o.Ref.String()
	if p.o.Ref.Digest != "" {
		// Nothing about a digest can change: write only what is new.
		index, err := p.layout.Index()
		if err == nil && (index.Find(name) != nil || means(index, p.o.Ref.Name(), res.Digest)) {
			return nil
		}
	} else if !p.fetched {
		return nil // who fetched it has recorded it
	}
	d := p.top
	d.Digest = res.Digest
	d.Annotations = map[string]string{
		layout.RefName:  name,
		layout.PulledAt: time.Now().UTC().Format(time.RFC3339Nano),
	}
	if d.MediaType == "" { // found by digest
		d.MediaType = layout.TypeManifest
		if res.Digest != res.Manifest {
			d.MediaType = layout.TypeIndex
		}
	}
	return p.layout.Update(ctx, func(x *layout.Index) { x.Set(name, d) })
}
