// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/signature"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/policy"
)

// maxEvidence limits the size in bytes of what is read of a user's signatures, as JSON.
const maxEvidence = 2 * layout.MaxEvidence

// VerifySignature returns the keys that have signed the image, if the policy
// requires that one has, and an error if none has.
func VerifySignature(p policy.Policy, r ref.Ref, manifestDigest string, evidence io.Reader) ([]string, error) {
	rule := p.RuleFor(r.Origin())
	if rule.Check != policy.Require {
		return nil, nil
	}
	var e layout.Evidence
	if err := json.NewDecoder(io.LimitReader(evidence, maxEvidence)).Decode(&e); err != nil {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	return signature.VerifyBy(rule, e, manifestDigest)
}

// NoteSigned adds keys to those whose signature of a stored image was verified.
func NoteSigned(ctx context.Context, stores store.Tiers, digest string, keys []string) error {
	return stores.Amend(ctx, digest, func(m *store.Meta) {
		m.Signed = slices.Compact(slices.Sorted(slices.Values(append(m.Signed, keys...))))
	})
}
