// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/policy"
)

func parse(t *testing.T, name string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rules(check policy.Check) policy.Policy {
	return policy.Policy{Signatures: []policy.Rule{{Images: "**", Check: check, Keys: []string{"/no/such/key"}}}}
}

// TestPolicy checks when signatures are verified, and when a failure is only told.
func TestPolicy(t *testing.T) {
	image := parse(t, "example.org/a:1")
	for check, want := range map[policy.Check][2]bool{policy.Off: {false, false}, policy.Warn: {true, true}, policy.Require: {true, false}} {
		var told []error
		p := Policy(rules(check), image, func(_ ref.Ref, err error) { told = append(told, err) })
		if verifies, warns := p.Verify != nil, p.Warn != nil; verifies != want[0] || warns != want[1] {
			t.Errorf("%s: verifies %v, warns %v; want %v", check, verifies, warns, want)
		}
		if p.Verify != nil {
			if err := p.Verify(layout.Evidence{}, layout.Digest(nil)); err == nil {
				t.Errorf("%s: verified without a key", check)
			}
		}
		if p.Warn != nil {
			if p.Warn(errors.New("unsigned")); len(told) != 1 {
				t.Errorf("%s: told %v", check, told)
			}
		}
	}
}

// TestPermitLocal checks that an image in a file counts as unsigned.
func TestPermitLocal(t *testing.T) {
	image := parse(t, "docker-archive:/tmp/a.tar")
	for check, want := range map[policy.Check]string{policy.Off: "", policy.Warn: "", policy.Require: "must be signed"} {
		told := 0
		err := permitLocal(rules(check), image, func(ref.Ref, error) { told++ })
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || (told == 1) != (check == policy.Warn) {
			t.Errorf("%s: %v, told %d times; want %q", check, err, told, want)
		}
	}
}

// TestDirectory checks that a directory is not fetched.
func TestDirectory(t *testing.T) {
	if _, err := Image(t.Context(), parse(t, "dir:/tmp"), Options{}); err == nil || !strings.Contains(err.Error(), "is used as it is") {
		t.Errorf("Image = %v", err)
	}
}
