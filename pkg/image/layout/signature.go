// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// Signatures are kept as a registry has them, under tags that are made of the
// digest of what is signed:
//
//	sha256-HEX.sig   a manifest with payloads and, in annotations, signatures
//	sha256-HEX       an index of what refers to the digest, with bundles among it

// The media types of signatures, and the annotations that say more.
const (
	typePayload     = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeBundle      = "application/vnd.dev.sigstore.bundle."
	typeEmpty       = "application/vnd.oci.empty.v1+json"
	signatureOf     = "dev.cosignproject.cosign/signature"
	bundlePredicate = "dev.sigstore.bundle.predicateType"
	// PredicateSignature is what a bundle that signs an image says of it; others
	// say, for example, how it was built.
	PredicateSignature = "https://sigstore.dev/cosign/sign/v1"
)

// MaxSignature limits the size of a payload or bundle, maxSignatures how many are
// looked at, and MaxEvidence the size of all of them with the indexes.
const (
	MaxSignature  = 1 << 20
	maxSignatures = 32
	MaxEvidence   = 4 << 20
)

// Evidence is what a cache has to show for an image: untrusted, and small enough
// to be handed from one process to another.
type Evidence struct {
	// Indexes lead from what the image's name points to down to its manifest.
	Indexes [][]byte
	// Signatures are of one of the indexes or of the manifest, by anyone.
	Signatures []Signature

	size int // of all
}

// Signature is one signature: a payload with the signature of it in base64, or a
// bundle, which has both.
type Signature struct {
	Payload []byte
	Value   string
	Bundle  []byte
}

// SignatureRef names the signatures, in cosign's older form, of a digest in the
// repository of r, and ReferrersRef what else refers to it.
func SignatureRef(r ref.Ref, digest string) ref.Ref {
	r = ReferrersRef(r, digest)
	r.Tag += ".sig"
	return r
}

// ReferrersRef is explained with [SignatureRef].
func ReferrersRef(r ref.Ref, digest string) ref.Ref {
	r.Tag, r.Digest = strings.Replace(digest, ":", "-", 1), ""
	return r
}

// Signed returns the digest that a name in index.json has signatures of, or "".
func Signed(name string) string {
	hex := strings.TrimSuffix(name[strings.LastIndexByte(name, ':')+1:], ".sig")
	if digest := strings.Replace(hex, "sha256-", "sha256:", 1); hex != digest && ref.IsDigest(digest) {
		return digest
	}
	return ""
}

// Evidence returns what the layout has for an image: r is its name, top what
// that points to and m its manifest for platform p.
func (l *Layout) Evidence(r ref.Ref, top string, m Manifest, p Platform) (Evidence, error) {
	var e Evidence
	signed := []string{top}
	for digest := top; digest != m.Digest; {
		raw, err := l.ReadBlob(digest, MaxManifest)
		if err != nil {
			return Evidence{}, fmt.Errorf("read index: %w", err)
		}
		_, index, err := Parse(raw)
		if err != nil || index == nil || len(e.Indexes) == maxNesting {
			return Evidence{}, fmt.Errorf("read index %s: it does not lead to %s", digest, m.Digest)
		}
		d, err := index.Select(p)
		if err != nil {
			return Evidence{}, fmt.Errorf("read index %s: %w", digest, err)
		}
		digest = d.Digest
		e.Indexes, signed = append(e.Indexes, raw), append(signed, digest)
		if e.size += len(raw); e.size > MaxEvidence {
			return Evidence{}, fmt.Errorf("read index %s: with those above it is %w", digest, budget.Large(MaxEvidence))
		}
	}
	for _, digest := range signed {
		l.addSimple(&e, SignatureRef(r, digest))
		l.addBundles(&e, ReferrersRef(r, digest))
	}
	return e, nil
}

// full reports whether there is no room for another signature of that size. What
// would be too much is no signature.
func (e *Evidence) full(size int64) bool {
	return len(e.Signatures) == maxSignatures || int64(e.size)+size > MaxEvidence
}

func (e *Evidence) add(s Signature) {
	e.Signatures = append(e.Signatures, s)
	e.size += len(s.Payload) + len(s.Value) + len(s.Bundle)
}

// addSimple adds the signatures of the older form. Whatever is missing or damaged is no
// signature.
func (l *Layout) addSimple(e *Evidence, r ref.Ref) {
	raw, err := l.manifest(r)
	if err != nil {
		return
	}
	for _, d := range SignatureBlobs(raw) {
		value := d.Annotations[signatureOf]
		if e.full(d.Size + int64(len(value))) {
			return
		}
		if payload, err := l.ReadBlob(d.Digest, d.Size); err == nil {
			e.add(Signature{Payload: payload, Value: value})
		}
	}
}

// manifest returns the manifest or index that a reference stands for.
func (l *Layout) manifest(r ref.Ref) ([]byte, error) {
	top, err := l.Resolve(r)
	if err != nil {
		return nil, err
	}
	return l.ReadBlob(top, MaxManifest)
}

// addBundles adds the bundles that refer to a digest.
func (l *Layout) addBundles(e *Evidence, r ref.Ref) {
	raw, err := l.manifest(r)
	if err != nil {
		return
	}
	_, index, err := Parse(raw)
	if err != nil || index == nil {
		return
	}
	for _, d := range index.Bundles() {
		raw, err := l.ReadBlob(d.Digest, MaxManifest)
		if err != nil {
			continue
		}
		for _, d := range SignatureBlobs(raw) {
			if e.full(d.Size) {
				return
			}
			if bundle, err := l.ReadBlob(d.Digest, d.Size); err == nil {
				e.add(Signature{Bundle: bundle})
			}
		}
	}
}

// Bundles returns those manifests of an index of referrers that may have bundles
// with signatures. Where cosign keeps the index itself, it does not say which.
func (x *Index) Bundles() []Descriptor {
	return some(x.Manifests, func(d Descriptor) bool {
		of := d.Annotations[bundlePredicate]
		return (strings.HasPrefix(d.ArtifactType, typeBundle) || d.ArtifactType == typeEmpty) && (of == "" || of == PredicateSignature)
	})
}

// SignatureBlobs returns the payloads and bundles of a manifest of signatures,
// which is no image. Anything else has none.
func SignatureBlobs(raw []byte) []Descriptor {
	var doc struct{ Layers descriptors }
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil
	}
	return some(doc.Layers, func(d Descriptor) bool {
		return d.MediaType == typePayload || strings.HasPrefix(d.MediaType, typeBundle)
	})
}

// some returns those descriptors that may be signatures, but not too many.
func some(all []Descriptor, wanted func(Descriptor) bool) []Descriptor {
	var found []Descriptor
	for _, d := range all {
		if wanted(d) && d.check() == nil && d.Size <= MaxSignature && len(found) < maxSignatures {
			found = append(found, d)
		}
	}
	return found
}
