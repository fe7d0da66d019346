// SPDX-License-Identifier: Apache-2.0

// Package signature verifies that an image was signed with one of a site's keys,
// as cosign signs: payloads beside the image ("simple signing"), and the bundles
// of Sigstore. Both end in a digest, of the image's manifest or of an index that
// leads to it.
//
// Only keys are looked at. No transparency log is asked, because compute nodes
// are offline and a key that is the site's needs no witness; certificates of
// identities (keyless signing) are not supported. As with cosign, the
// name in a payload is not compared: images keep their signatures when they are
// copied to another registry.
//
// All but the keys is untrusted. Nothing of it is believed before a signature of
// the bytes it stands in holds.
package signature

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/policy"
)

// The errors that wrap these say more.
var (
	ErrUnsigned = errors.New("it has no signature")
	ErrInvalid  = errors.New("none of its signatures counts")
)

// Key is a public key of the site's.
type Key struct {
	ID        string // of its file: see [policy.KeyID]
	verifiers []signature.Verifier
}

// LoadKeys reads public keys in PEM with read, which says whether a file can be
// trusted.
func LoadKeys(paths []string, read func(path string) ([]byte, error)) ([]Key, error) {
	var keys []Key
	for _, path := range paths {
		text, err := read(path)
		if err != nil {
			return nil, siteError(fmt.Errorf("read key of the policy: %w", err))
		}
		key, err := parseKey(text)
		if err != nil {
			return nil, siteError(fmt.Errorf("read key of the policy %s: %w", path, err))
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func siteError(err error) error {
	return fault.WithHint(err, "tell the administrator of this cluster")
}

// parseKey reads one key. cosign hashes with SHA-256 whatever the key; other
// programs that sign bundles take the hash that goes with the key's size.
func parseKey(text []byte) (Key, error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	if err != nil {
		return Key{}, err
	}
	usual, err := signature.LoadVerifier(public, crypto.SHA256)
	if err != nil {
		return Key{}, err
	}
	key := Key{ID: policy.KeyID(text), verifiers: []signature.Verifier{usual}}
	if other, err := signature.LoadDefaultVerifier(public); err == nil {
		key.verifiers = append(key.verifiers, other)
	}
	return key, nil
}

// Verify returns the IDs of those keys that have signed the image with the given
// manifest, at least one. The error says why there is none.
func Verify(e layout.Evidence, manifestDigest string, keys []Key) ([]string, error) {
	signed, err := digests(e.Indexes, manifestDigest)
	if err != nil {
		return nil, err
	}
	if len(e.Signatures) == 0 {
		return nil, ErrUnsigned
	}
	var ids []string
	var reason error
	for _, k := range keys {
		for _, s := range e.Signatures {
			if err := k.check(s, signed); err != nil {
				reason = worse(reason, err)
				continue
			}
			ids = append(ids, k.ID)
			break
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, reason)
	}
	return ids, nil
}

// digests returns the digests that a signature of the image may be of, after it
// was checked that each index leads to the next and the last to the manifest.
func digests(indexes [][]byte, manifestDigest string) (map[string]bool, error) {
	signed := map[string]bool{manifestDigest: true}
	below := manifestDigest
	for i := len(indexes) - 1; i >= 0; i-- {
		_, index, err := layout.Parse(indexes[i])
		digest := layout.Digest(indexes[i])
		if err != nil || index == nil || !contains(index, below) {
			return nil, fmt.Errorf("index %s does not have %s", digest, below)
		}
		signed[digest] = true
		below = digest
	}
	return signed, nil
}

func contains(index *layout.Index, digest string) bool {
	for _, d := range index.Manifests {
		if d.Digest == digest {
			return true
		}
	}
	return false
}

// The reasons why one signature does not count. The later one says more, since
// an image may well be signed by others, too.
var (
	errKey   = errors.New("they are not of a key that this site trusts, or were changed")
	errOther = errors.New("they are of another image")
)

func worse(a, b error) error {
	if errors.Is(a, errOther) {
		return a
	}
	return b
}

// check returns an error unless s is a signature of one of the digests.
func (k Key) check(s layout.Signature, signed map[string]bool) error {
	of := k.simple
	if s.Bundle != nil {
		of = k.bundle
	}
	digests, err := of(s)
	if err != nil {
		return fmt.Errorf("%w (%w)", errKey, err)
	}
	for _, d := range digests {
		if signed[d] {
			return nil
		}
	}
	return fmt.Errorf("%w (%s)", errOther, strings.Join(digests, ", "))
}

// simple verifies a payload and returns the digest it is about.
func (k Key) simple(s layout.Signature) ([]string, error) {
	raw, err := base64.StdEncoding.DecodeString(s.Value)
	if err != nil {
		return nil, err
	}
	if err := k.verify(func(v signature.Verifier) error {
		return v.VerifySignature(bytes.NewReader(raw), bytes.NewReader(s.Payload))
	}); err != nil {
		return nil, err
	}
	var doc payload.SimpleContainerImage
	if err := json.Unmarshal(s.Payload, &doc); err != nil {
		return nil, err
	}
	if doc.Critical.Type != payload.CosignSignatureType {
		return nil, fmt.Errorf("it is a %q", doc.Critical.Type)
	}
	return []string{doc.Critical.Image.DockerManifestDigest}, nil
}

// payloadType is what is signed in the bundle of an image: a statement of in-toto.
const payloadType = "application/vnd.in-toto+json"

// bundle verifies a bundle and returns the digests it is about.
func (k Key) bundle(s layout.Signature) ([]string, error) {
	var doc struct {
		DSSEEnvelope json.RawMessage `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(s.Bundle, &doc); err != nil {
		return nil, err
	}
	var statement []byte
	if err := k.verify(func(v signature.Verifier) error {
		v = dsse.WrapVerifier(v, dsse.WithExpectedPayloadType(payloadType), dsse.WithDecodedPayload(&statement))
		return v.VerifySignature(bytes.NewReader(doc.DSSEEnvelope), nil)
	}); err != nil {
		return nil, err
	}
	var says struct {
		PredicateType string
		Subject       []struct{ Digest map[string]string }
	}
	if err := json.Unmarshal(statement, &says); err != nil {
		return nil, err
	}
	if says.PredicateType != layout.PredicateSignature {
		return nil, fmt.Errorf("it is a %q", says.PredicateType)
	}
	var digests []string
	for _, subject := range says.Subject {
		digests = append(digests, "sha256:"+subject.Digest["sha256"])
	}
	return digests, nil
}

// verify tries all ways in which the key may have been used.
func (k Key) verify(try func(signature.Verifier) error) (err error) {
	for _, v := range k.verifiers {
		if err = try(v); err == nil {
			return nil
		}
	}
	return err
}
