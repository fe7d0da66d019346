// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// newKey makes a key pair and stores the public key where the site has its.
func (s *site) newKey(t *testing.T, file string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	if err := os.WriteFile(filepath.Join(s.dir, file), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return key
}

// sign pushes a signature of a digest, as cosign does.
func (s *site) sign(t *testing.T, r ref.Ref, digest string, key *ecdsa.PrivateKey) {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"}}`, digest)
	sum := sha256.Sum256(payload)
	raw, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:       static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(raw)},
	})
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.ParseReference(r.Origin() + ":" + strings.Replace(digest, ":", "-", 1) + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
}

// policy makes this the site's policy, in addition to where things are.
func (s *site) policy(t *testing.T, text string) {
	t.Helper()
	base, err := os.ReadFile(s.confPath)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(base), "[policy]")
	if err := os.WriteFile(s.confPath, []byte(before+"[policy]\n"+text), 0o644); err != nil {
		t.Fatal(err)
	}
	if s.conf, _, err = config.Load(s.confPath, os.ReadFile); err != nil {
		t.Fatal(err)
	}
}

func (s *site) require(t *testing.T, key string) {
	s.policy(t, fmt.Sprintf("[[policy.signatures]]\nimages = '%s/**'\ncheck = 'require'\nkeys = ['%s/%s']\n", s.registry, s.dir, key))
}

// get gets the image for a user and checks that the error, if any, has the text.
func (s *site) get(t *testing.T, uid uint32, r ref.Ref, want string) store.Meta {
	t.Helper()
	img, err := Get(t.Context(), s.source(uid), r)
	if want != "" {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("Get for %d = %v; want an error with %q", uid, err, want)
		}
		return store.Meta{}
	}
	if err != nil {
		t.Fatalf("Get for %d = %v", uid, err)
	}
	img.Close()
	return img.Meta
}

// TestGetSigned: a policy that was tightened holds for what is stored already.
func TestGetSigned(t *testing.T) {
	s := newSite(t)
	key, foreign := s.newKey(t, "site.pub"), s.newKey(t, "foreign.pub")
	r := s.push(t, "1")
	digest := s.get(t, 4711, r, "").Digest

	s.require(t, "site.pub")
	s.get(t, 4711, r, "must be signed: it has no signature")
	s.sign(t, r, digest, foreign)
	s.get(t, 4711, r, "not of a key that this site trusts")
	s.sign(t, r, digest, key)
	if m := s.get(t, 4711, r, ""); len(m.Signed) != 1 {
		t.Errorf("the store notes the keys %q; want one", m.Signed)
	}
	before := s.count("/test/")
	s.get(t, 4711, r, "")
	if got := s.count("/test/") - before; got != 0 {
		t.Errorf("%d requests for an image that was verified; want none", got)
	}
	s.get(t, 4712, r, "") // has its own cache

	s.require(t, "foreign.pub")
	s.get(t, 4711, r, "not of a key that this site trusts")
	s.require(t, "missing.pub")
	s.get(t, 4711, r, "read key of the policy: ")
	s.policy(t, "")
	s.get(t, 4711, r, "")
}

// TestGetSignedForAnother: a signature of one image does not help another, and
// not either when a user puts it where that one's would be.
func TestGetSignedForAnother(t *testing.T) {
	s := newSite(t)
	key := s.newKey(t, "site.pub")
	signed, other := s.push(t, "signed"), s.push(t, "other")
	digest := s.get(t, 4711, signed, "").Digest
	s.sign(t, signed, digest, key)
	s.require(t, "site.pub")
	s.get(t, 4711, signed, "")
	s.get(t, 4711, other, "it has no signature")

	// A cache where the name of the signed image means the other one.
	s.policy(t, "")
	forged := s.get(t, 4711, other, "").Digest
	s.require(t, "site.pub")
	index := filepath.Join(s.dir, "cache/4711/index.json")
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{digest: forged, strings.Replace(digest, ":", "-", 1): strings.Replace(forged, ":", "-", 1)} {
		text = []byte(strings.ReplaceAll(string(text), from, to))
	}
	if err := os.WriteFile(index, text, 0o644); err != nil {
		t.Fatal(err)
	}
	s.get(t, 4711, signed, "must be signed")
}

// TestConvertVerifies: it is not the user's pull that decides.
func TestConvertVerifies(t *testing.T) {
	s := newSite(t)
	s.newKey(t, "site.pub")
	r := s.push(t, "1")
	s.require(t, "site.pub")
	owner, err := store.LookupOwner(storeOwner)
	if err != nil {
		t.Fatal(err)
	}
	for _, evidence := range []string{"", "{}", `{"Signatures":[{"Payload":"e30=","Value":"e30="}]}`} {
		err := command.Run(t.Context(), command.Cmd{
			Path: s.conf.Client, Args: []string{"convert", "--config", s.confPath, r.String(), "sha256:" + strings.Repeat("a", 64)},
			Identity: &owner, Stdin: strings.NewReader(evidence),
		})
		if err == nil || !strings.Contains(err.Error(), "signature") {
			t.Errorf("convert with evidence %q = %v; want an error about signatures", evidence, err)
		}
	}
}

// TestGetLists: what the site denies does not run, stored or not.
func TestGetLists(t *testing.T) {
	s := newSite(t)
	r := s.push(t, "1")
	digest := s.get(t, 4711, r, "").Digest
	s.policy(t, "deny = ['"+digest+"']")
	s.get(t, 4711, r, "is denied on this cluster ("+digest+")")
	s.get(t, 4712, r, "is denied on this cluster ("+digest+")")
	s.policy(t, "allow = ['docker.io/**']")
	s.get(t, 4711, r, "is not among those allowed on this cluster")
	s.policy(t, "allow = ['docker.io/**', '"+digest+"']")
	s.get(t, 4711, r, "")
}
