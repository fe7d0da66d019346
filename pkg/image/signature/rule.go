// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"fmt"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/policy"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// VerifyBy returns the keys of a rule of the site that have signed an image, or an error for
// the user if none has.
func VerifyBy(rule policy.Rule, e layout.Evidence, manifestDigest string) ([]string, error) {
	keys, err := LoadKeys(rule.Keys, trust.Read)
	if err != nil {
		return nil, err
	}
	ids, err := Verify(e, manifestDigest, keys)
	if err != nil {
		return nil, Must(rule, err)
	}
	return ids, nil
}

// Must says that images must be signed by a rule of the site, and why one is not.
func Must(rule policy.Rule, err error) error {
	return fault.WithHint(fmt.Errorf("images of %s must be signed: %w", rule.Images, err),
		"sign it with cosign and a key of this site, or use a signed one; the registry keeps signatures beside the image")
}
