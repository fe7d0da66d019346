// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// signer is a key pair.
type signer struct {
	signature.Signer
	pem []byte
}

func newSigner(t *testing.T, private crypto.Signer, hash crypto.Hash) signer {
	t.Helper()
	s, err := signature.LoadSigner(private, hash)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := cryptoutils.MarshalPublicKeyToPEM(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, pem}
}

func newECDSA(t *testing.T, curve elliptic.Curve, hash crypto.Hash) signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newSigner(t, private, hash)
}

func (s signer) key(t *testing.T) Key {
	t.Helper()
	keys, err := LoadKeys([]string{"/k"}, func(string) ([]byte, error) { return s.pem, nil })
	if err != nil {
		t.Fatal(err)
	}
	return keys[0]
}

const cosignType = "cosign container image signature"

// payload returns what cosign signs.
func simplePayload(kind, digest string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"r/app"},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, digest, kind)
}

func (s signer) simple(t *testing.T, payload []byte) layout.Signature {
	t.Helper()
	raw, err := s.SignMessage(bytes.NewReader(payload))
	if err != nil {
		t.Fatal(err)
	}
	return layout.Signature{Payload: payload, Value: base64.StdEncoding.EncodeToString(raw)}
}

func (s signer) bundle(t *testing.T, payloadType, predicate, digest string) layout.Signature {
	t.Helper()
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`,
		strings.TrimPrefix(digest, "sha256:"), predicate)
	envelope, err := dsse.WrapSigner(s, payloadType).SignMessage(strings.NewReader(statement))
	if err != nil {
		t.Fatal(err)
	}
	return layout.Signature{Bundle: fmt.Appendf(nil, `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":%s}`, envelope)}
}

func digestOf(char string) string { return "sha256:" + strings.Repeat(char, 64) }

func TestVerify(t *testing.T) {
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var (
		site    = newECDSA(t, elliptic.P256(), crypto.SHA256)
		second  = newSigner(t, rsaKey, crypto.SHA256)
		edwards = newSigner(t, edKey, 0)
		large   = newECDSA(t, elliptic.P384(), crypto.SHA256) // as cosign does
		larger  = newECDSA(t, elliptic.P384(), crypto.SHA384)
		foreign = newECDSA(t, elliptic.P256(), crypto.SHA256)
	)
	image, other := digestOf("a"), digestOf("b")
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"digest":%q},{"digest":%q}]}`, layout.TypeIndex, other, image)
	outer := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"digest":%q}]}`, layout.TypeIndex, layout.Digest(index))
	good := site.simple(t, simplePayload(cosignType, image))
	bundle := site.bundle(t, payloadType, layout.PredicateSignature, image)

	changed := good
	changed.Payload = simplePayload(cosignType, other)
	noValue := good
	noValue.Value = "?"
	changedBundle := layout.Signature{Bundle: bytes.Replace(bundle.Bundle, []byte(`"payload":"`), []byte(`"payload":"AAAA`), 1)}

	for _, tt := range []struct {
		name       string
		keys       []signer
		indexes    [][]byte
		signatures []layout.Signature
		by         []signer // empty means an error
		err        string
	}{
		{name: "payload", keys: []signer{site}, signatures: []layout.Signature{good}, by: []signer{site}},
		{name: "bundle", keys: []signer{site}, signatures: []layout.Signature{bundle}, by: []signer{site}},
		{name: "RSA", keys: []signer{second}, signatures: []layout.Signature{second.simple(t, simplePayload(cosignType, image))}, by: []signer{second}},
		{name: "Ed25519", keys: []signer{edwards}, signatures: []layout.Signature{edwards.simple(t, simplePayload(cosignType, image))}, by: []signer{edwards}},
		{name: "P-384 with SHA-256", keys: []signer{large}, signatures: []layout.Signature{large.simple(t, simplePayload(cosignType, image))}, by: []signer{large}},
		{name: "P-384 with SHA-384", keys: []signer{larger}, signatures: []layout.Signature{larger.bundle(t, payloadType, layout.PredicateSignature, image)}, by: []signer{larger}},
		{name: "the second of two keys", keys: []signer{site, second}, signatures: []layout.Signature{second.simple(t, simplePayload(cosignType, image))}, by: []signer{second}},
		{name: "both of two keys", keys: []signer{site, second}, signatures: []layout.Signature{second.simple(t, simplePayload(cosignType, image)), good}, by: []signer{site, second}},
		{name: "beside signatures that do not count", keys: []signer{site}, signatures: []layout.Signature{changed, {}, foreign.simple(t, simplePayload(cosignType, image)), good}, by: []signer{site}},
		{name: "of the index", keys: []signer{site}, indexes: [][]byte{index}, signatures: []layout.Signature{site.simple(t, simplePayload(cosignType, layout.Digest(index)))}, by: []signer{site}},
		{name: "of an index of the index", keys: []signer{site}, indexes: [][]byte{outer, index}, signatures: []layout.Signature{site.bundle(t, payloadType, layout.PredicateSignature, layout.Digest(outer))}, by: []signer{site}},
		{name: "of the manifest in an index", keys: []signer{site}, indexes: [][]byte{index}, signatures: []layout.Signature{good}, by: []signer{site}},

		{name: "none", keys: []signer{site}, err: "it has no signature"},
		{name: "no key", signatures: []layout.Signature{good}, err: "none of its signatures counts"},
		{name: "another key", keys: []signer{foreign}, signatures: []layout.Signature{good}, err: "not of a key that this site trusts"},
		{name: "another key for a bundle", keys: []signer{foreign}, signatures: []layout.Signature{bundle}, err: "not of a key that this site trusts"},
		{name: "another image", keys: []signer{site}, signatures: []layout.Signature{site.simple(t, simplePayload(cosignType, other))}, err: "of another image (" + other + ")"},
		{name: "another image in a bundle", keys: []signer{site}, signatures: []layout.Signature{site.bundle(t, payloadType, layout.PredicateSignature, other)}, err: "of another image (" + other + ")"},
		{name: "changed payload", keys: []signer{site}, signatures: []layout.Signature{changed}, err: "or were changed"},
		{name: "changed bundle", keys: []signer{site}, signatures: []layout.Signature{changedBundle}, err: "or were changed"},
		{name: "signature that is none", keys: []signer{site}, signatures: []layout.Signature{noValue}, err: "or were changed"},
		{name: "payload for something else", keys: []signer{site}, signatures: []layout.Signature{site.simple(t, simplePayload("atomic", image))}, err: `it is a "atomic"`},
		{name: "bundle that says something else", keys: []signer{site}, signatures: []layout.Signature{site.bundle(t, payloadType, "https://slsa.dev/provenance/v1", image)}, err: `it is a "https://slsa.dev/provenance/v1"`},
		{name: "bundle of something else", keys: []signer{site}, signatures: []layout.Signature{site.bundle(t, "text/plain", layout.PredicateSignature, image)}, err: "payload type"},
		{name: "bundle that is empty", keys: []signer{site}, signatures: []layout.Signature{{Bundle: []byte("{}")}}, err: "not of a key"},
		{name: "bundle that is no JSON", keys: []signer{site}, signatures: []layout.Signature{{Bundle: []byte("x")}}, err: "not of a key"},
		{name: "an index without the image", keys: []signer{site}, indexes: [][]byte{outer}, signatures: []layout.Signature{site.simple(t, simplePayload(cosignType, layout.Digest(outer)))}, err: "does not have " + image},
		{name: "indexes in the wrong order", keys: []signer{site}, indexes: [][]byte{index, outer}, signatures: []layout.Signature{good}, err: "does not have"},
		{name: "a manifest for an index", keys: []signer{site}, indexes: [][]byte{[]byte(`{"schemaVersion":2,"config":{"digest":"` + image + `"}}`)}, signatures: []layout.Signature{good}, err: "does not have"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var keys []Key
			for _, k := range tt.keys {
				keys = append(keys, k.key(t))
			}
			var want []string
			for _, k := range tt.by {
				want = append(want, k.key(t).ID)
			}
			got, err := Verify(layout.Evidence{Indexes: tt.indexes, Signatures: tt.signatures}, image, keys)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || got != nil {
					t.Errorf("Verify = %q, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("Verify = %q, %v; want %q", got, err, want)
			}
		})
	}
}

// TestEvidenceTravels: what one process hands to another is the same there.
func TestEvidenceTravels(t *testing.T) {
	site := newECDSA(t, elliptic.P256(), crypto.SHA256)
	image := digestOf("a")
	e := layout.Evidence{Signatures: []layout.Signature{site.bundle(t, payloadType, layout.PredicateSignature, image)}}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var got layout.Evidence
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(got, image, []Key{site.key(t)}); err != nil {
		t.Errorf("Verify = %v", err)
	}
}

func TestLoadKeys(t *testing.T) {
	site := newECDSA(t, elliptic.P256(), crypto.SHA256)
	for _, tt := range []struct {
		name, text, err string
	}{
		{"key", string(site.pem), ""},
		{"key with a comment", "# of the site\n" + string(site.pem), ""},

		{"nothing", "", "read key of the policy /k: "},
		{"no PEM", "ssh-ed25519 AAAA", "read key of the policy /k: "},
		{"private key", strings.ReplaceAll(string(site.pem), "PUBLIC", "PRIVATE"), "read key of the policy /k: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			keys, err := LoadKeys([]string{"/k"}, func(string) ([]byte, error) { return []byte(tt.text), nil })
			if tt.err == "" {
				if err != nil || len(keys) != 1 {
					t.Errorf("LoadKeys = %v, %v", keys, err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), tt.err) || fault.Hint(err) == "" {
				t.Errorf("LoadKeys = %v, %v; want an error with a hint that begins %q", keys, err, tt.err)
			}
		})
	}
	if _, err := LoadKeys([]string{"/no/such/key"}, os.ReadFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadKeys of a missing file = %v; want %v", err, fs.ErrNotExist)
	}
}

// TestCosign: testdata was made by cosign 2.6.3 with --tlog-upload=false, the
// bundle with --new-bundle-format.
func TestCosign(t *testing.T) {
	keys, err := LoadKeys([]string{"testdata/cosign.pub"}, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		content, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	for _, tt := range []struct {
		name, digest string
		signature    layout.Signature
	}{
		{"payload", "sha256:78ef7c1339490d14c7bc5bd5cef6f3b6b0ba9a9c5451670e9bf3df45f4050f39", layout.Signature{
			Payload: read("payload.json"),
			Value:   "MEUCIQCwKE8Y3oX4U3k/k64P5K6feF3NC44vh0aoxBSmwUnlIQIgKm503Hbl8el1aElgVNqfhX6Tv27nnJVuAe58ncs6VwY=",
		}},
		{"bundle", "sha256:8ec3e3d2ea0c823375fb11f0a67e94b045c23fb03b03ba158122834140ce477f", layout.Signature{Bundle: read("bundle.json")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := layout.Evidence{Signatures: []layout.Signature{tt.signature}}
			if _, err := Verify(e, tt.digest, keys); err != nil {
				t.Errorf("Verify = %v", err)
			}
			if _, err := Verify(e, digestOf("a"), keys); !errors.Is(err, errOther) {
				t.Errorf("Verify of another image = %v; want %v", err, errOther)
			}
		})
	}
}
