// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// Policy says which images may be pulled. It serves the user, who learns early
// what would be refused; what counts is decided where an image is used.
type Policy struct {
	// Permit returns an error for an image with these digests; see
	// [layout.Manifest.Digests]. May be nil.
	Permit func(whole, parts []string) error
	// Verify returns an error unless an image's signatures satisfy the site. Nil
	// means that it asks for none, and then none are fetched.
	Verify func(e layout.Evidence, manifestDigest string) error
	// Warn, if set, is told what Verify says in place of failing the pull.
	Warn func(error)
}

// accept checks an image whose manifest the cache has. The registry is asked for
// signatures when the cache has none that will do: once, where they are not
// required and a cached image is asked for.
func (p *puller) accept(ctx context.Context) error {
	policy := p.o.Policy
	if policy.Permit != nil {
		if err := policy.Permit(p.image.Digests(p.top.Digest)); err != nil {
			return err
		}
	}
	if policy.Verify == nil {
		return nil
	}
	err := p.verify()
	switch {
	case err == nil:
	case p.o.Offline:
		err = fmt.Errorf("by the signatures in your cache (no registry is to be asked): %w", err)
	case policy.Warn == nil || !p.o.IfMissing || !p.asked():
		err = p.fetchAndVerify(ctx)
	}
	if err != nil && policy.Warn != nil && ctx.Err() == nil {
		policy.Warn(err)
		return nil
	}
	return err
}

// fetchAndVerify asks the registry for signatures.
func (p *puller) fetchAndVerify(ctx context.Context) error {
	err := p.confine(ctx)
	if err == nil {
		err = p.signatures(ctx)
	}
	if err != nil {
		return err
	}
	return p.verify()
}

func (p *puller) verify() error {
	e, err := p.layout.Evidence(p.o.Ref, p.top.Digest, p.image, p.platform)
	if err != nil {
		return err
	}
	return p.o.Policy.Verify(e, p.image.Digest)
}

// asked says whether the registry was ever asked for signatures of the image.
func (p *puller) asked() bool {
	_, err := p.layout.Lookup(layout.ReferrersRef(p.o.Ref, p.top.Digest))
	return err == nil
}

// signatures fetches what the registry has of signatures of the image: of its
// index, if there is one, and of its manifest.
func (p *puller) signatures(ctx context.Context) error {
	digests := []string{p.top.Digest}
	if p.image.Digest != p.top.Digest {
		digests = append(digests, p.image.Digest)
	}
	for _, digest := range digests {
		if err := errors.Join(p.simple(ctx, digest), p.referrers(ctx, digest)); err != nil {
			return fmt.Errorf("fetch signatures: %w", err)
		}
	}
	return nil
}

// simple fetches signatures in cosign's older form.
func (p *puller) simple(ctx context.Context, digest string) error {
	name := layout.SignatureRef(p.o.Ref, digest)
	raw, err := p.document(ctx, (*registry).manifest, name.Tag)
	if isMissing(err) {
		return p.layout.Update(ctx, func(x *layout.Index) { x.Delete(name.String()) })
	}
	if err != nil {
		return err
	}
	if err := p.blobs(ctx, layout.SignatureBlobs(raw)); err != nil {
		return err
	}
	return p.name(ctx, name, layout.TypeManifest, raw)
}

// referrers fetches bundles. Registries that do not list what refers to a digest
// have a tag in place of that, which clients keep up to date.
func (p *puller) referrers(ctx context.Context, digest string) error {
	name := layout.ReferrersRef(p.o.Ref, digest)
	raw, err := p.document(ctx, (*registry).referrers, digest)
	if isMissing(err) {
		raw, err = p.document(ctx, (*registry).manifest, name.Tag)
	}
	if isMissing(err) {
		raw, err = json.Marshal(layout.Index{SchemaVersion: 2, MediaType: layout.TypeIndex, Manifests: []layout.Descriptor{}})
	}
	if err != nil {
		return err
	}
	_, index, err := layout.Parse(raw)
	if err != nil {
		return err
	}
	if index != nil {
		for _, d := range index.Bundles() {
			if err := p.bundle(ctx, d.Digest); err != nil {
				return err
			}
		}
	}
	return p.name(ctx, name, layout.TypeIndex, raw)
}

// document fetches something small from the first place that has it.
func (p *puller) document(ctx context.Context, get func(*registry, context.Context, string) ([]byte, error), name string) (raw []byte, err error) {
	_, err = p.somewhere(ctx, p.places, func(reg *registry) (err error) {
		raw, err = get(reg, ctx, name)
		return err
	})
	return raw, err
}

// bundle fetches a manifest of bundles and what it has.
func (p *puller) bundle(ctx context.Context, digest string) error {
	raw, err := p.layout.ReadBlob(digest, layout.MaxManifest)
	if err != nil {
		if raw, err = p.document(ctx, (*registry).manifest, digest); err != nil {
			return err
		}
	}
	if err := p.blobs(ctx, layout.SignatureBlobs(raw)); err != nil {
		return err
	}
	_, err = p.layout.PutBlob(raw)
	return err
}

// name stores what a tag of signatures points to.
func (p *puller) name(ctx context.Context, r ref.Ref, mediaType string, raw []byte) error {
	digest, err := p.layout.PutBlob(raw)
	if err != nil {
		return err
	}
	return p.layout.Update(ctx, func(x *layout.Index) {
		x.Set(r.String(), layout.Descriptor{
			MediaType: mediaType, Digest: digest, Size: int64(len(raw)),
			Annotations: map[string]string{layout.RefName: r.String()},
		})
	})
}

// isMissing says whether the registry does not have what it was asked for, or
// does not know what was meant.
func isMissing(err error) bool {
	var te *transport.Error
	if !errors.As(err, &te) {
		return false
	}
	return te.StatusCode == http.StatusNotFound || te.StatusCode == http.StatusBadRequest || te.StatusCode == http.StatusMethodNotAllowed
}
