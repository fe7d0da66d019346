// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/pull"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/signature"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/policy"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// maxEvidence limits what convert reads of a user's signatures.
const maxEvidence = 2 * layout.MaxEvidence // as JSON

// pullPolicy is the site's policy for a pull of r. It tells the user early; see
// [verifySignature] for what counts.
func pullPolicy(p policy.Policy, r ref.Ref) pull.Policy {
	rule := p.RuleFor(r.Origin())
	out := pull.Policy{Permit: func(whole, parts []string) error { return p.Permit(r.Origin(), whole, parts) }}
	if rule.Check == policy.Off {
		return out
	}
	out.Verify = func(e layout.Evidence, manifestDigest string) error {
		_, err := verify(rule, e, manifestDigest)
		return err
	}
	if rule.Check == policy.Warn {
		out.Warn = func(err error) { warn(r, err) }
	}
	return out
}

// permitLocal is the same for an image in a file, of which no signature is known.
func permitLocal(p policy.Policy, r ref.Ref) error {
	if err := p.Permit(r.Origin(), nil, nil); err != nil {
		return err
	}
	rule := p.RuleFor(r.Origin())
	if rule.Check == policy.Off {
		return nil
	}
	err := mustBeSigned(rule, signature.ErrUnsigned)
	if rule.Check == policy.Warn {
		warn(r, err)
		return nil
	}
	return err
}

func mustBeSigned(rule policy.Rule, err error) error {
	return fault.WithHint(fmt.Errorf("images of %s must be signed: %w", rule.Images, err),
		"sign it with cosign and a key of this site, or use a signed one; the registry keeps signatures beside the image")
}

func warn(r ref.Ref, err error) {
	fmt.Fprintf(os.Stderr, "brolga: warning: image %s: %s\n", r, fault.Line(err))
}

// verifySignature returns the keys that have signed the image, if the policy
// requires that one has, and an error if none has.
func verifySignature(p policy.Policy, r ref.Ref, manifestDigest string, evidence io.Reader) ([]string, error) {
	rule := p.RuleFor(r.Origin())
	if rule.Check != policy.Require {
		return nil, nil
	}
	var e layout.Evidence
	if err := json.NewDecoder(io.LimitReader(evidence, maxEvidence)).Decode(&e); err != nil {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	return verify(rule, e, manifestDigest)
}

func verify(rule policy.Rule, e layout.Evidence, manifestDigest string) ([]string, error) {
	keys, err := signature.LoadKeys(rule.Keys, trust.Read)
	if err != nil {
		return nil, err
	}
	ids, err := signature.Verify(e, manifestDigest, keys)
	if err != nil {
		return nil, mustBeSigned(rule, err)
	}
	return ids, nil
}

// noteSigned adds keys to those whose signature of a stored image was verified.
func noteSigned(ctx context.Context, stores store.Tiers, digest string, keys []string) error {
	return stores.Amend(ctx, digest, func(m *store.Meta) {
		m.Signed = slices.Compact(slices.Sorted(slices.Values(append(m.Signed, keys...))))
	})
}
