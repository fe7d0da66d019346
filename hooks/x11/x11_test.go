// SPDX-License-Identifier: Apache-2.0

package x11

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/request"
)

func TestEdit(t *testing.T) {
	if (Hook{}).Wanted(request.Request{}) {
		t.Error("Wanted in a step without a display")
	}
	r := request.Request{Environment: request.Environment{XAuthority: "/tmp/.Xauthority-x"}}
	if !(Hook{}).Wanted(r) {
		t.Error("not Wanted in a step with one")
	}
	var s specs.Spec
	if err := (Hook{}).Edit(&s, r); err != nil || len(s.Mounts) != 1 {
		t.Fatalf("Edit = %v, mounts %v", err, s.Mounts)
	}
	m := s.Mounts[0]
	for _, want := range []string{"ro", bundlespec.AsUser, bundlespec.Optional} {
		if m.Source != r.XAuthority || m.Destination != r.XAuthority || !slices.Contains(m.Options, want) {
			t.Errorf("Edit makes the mount %+v; want the file with %s", m, want)
		}
	}
}
