// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// TestEvidenceIsLimited gives an image as many large signatures, in both forms, as a user
// can put into a cache: root keeps them until they are verified.
func TestEvidenceIsLimited(t *testing.T) {
	l := newLayout(t)
	r := ref.Ref{Registry: "a.example", Repository: "b", Tag: "1"}
	m := put(t, l, r.String(), "layer")
	blob := func(content []byte) Descriptor {
		digest, err := l.PutBlob(content)
		if err != nil {
			t.Fatal(err)
		}
		return Descriptor{Digest: digest, Size: int64(len(content))}
	}
	document := func(what map[string]any) Descriptor {
		what["schemaVersion"] = 2
		raw, err := json.Marshal(what)
		if err != nil {
			t.Fatal(err)
		}
		return blob(raw)
	}
	var bundles []Descriptor
	payload := make([]Descriptor, 0, 8)
	for i := range cap(payload) {
		d := blob([]byte(fmt.Sprint(i) + strings.Repeat("x", MaxSignature-1)))
		d.MediaType = typePayload
		payload = append(payload, d)
		d.MediaType = typeBundle
		bundle := document(map[string]any{"layers": []Descriptor{d, d, d}})
		bundle.ArtifactType = typeBundle
		bundles = append(bundles, bundle)
	}
	for name, d := range map[string]Descriptor{
		SignatureRef(r, m.Digest).String(): document(map[string]any{"layers": payload}),
		ReferrersRef(r, m.Digest).String(): document(map[string]any{"mediaType": TypeIndex, "manifests": bundles}),
	} {
		d.Annotations = map[string]string{RefName: name}
		if err := l.Update(t.Context(), func(x *Index) { x.Set(name, d) }); err != nil {
			t.Fatal(err)
		}
	}
	e, err := l.Evidence(r, m.Digest, m, Host())
	size := 0
	for _, s := range e.Signatures {
		size += len(s.Payload) + len(s.Bundle)
	}
	if err != nil || size == 0 || size > MaxEvidence {
		t.Errorf("Evidence = %d signatures of %d bytes, %v; want some, and at most %d bytes", len(e.Signatures), size, err, MaxEvidence)
	}
}
