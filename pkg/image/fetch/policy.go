// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/pull"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/signature"
	"github.com/brolga-hpc/brolga/pkg/policy"
)

// Warn gets what the user is to read of an image.
type Warn func(r ref.Ref, err error)

// Policy is the site's policy for a pull of r. It tells the user early;
// convert.VerifySignature says what counts.
func Policy(p policy.Policy, r ref.Ref, warn Warn) pull.Policy {
	rule := p.RuleFor(r.Origin())
	out := pull.Policy{Permit: func(whole, parts []string) error { return p.Permit(r.Origin(), whole, parts) }}
	if rule.Check == policy.Off {
		return out
	}
	out.Verify = func(e layout.Evidence, manifestDigest string) error {
		_, err := signature.VerifyBy(rule, e, manifestDigest)
		return err
	}
	if rule.Check == policy.Warn {
		out.Warn = func(err error) { warn(r, err) }
	}
	return out
}

// permitLocal is the same for an image in a file, of which no signature is known.
func permitLocal(p policy.Policy, r ref.Ref, warn Warn) error {
	if err := p.Permit(r.Origin(), nil, nil); err != nil {
		return err
	}
	rule := p.RuleFor(r.Origin())
	if rule.Check == policy.Off {
		return nil
	}
	err := signature.Must(rule, signature.ErrUnsigned)
	if rule.Check == policy.Warn {
		warn(r, err)
		return nil
	}
	return err
}
