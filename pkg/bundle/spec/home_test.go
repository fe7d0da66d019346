// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// TestHomeIsRoot checks that the home directory / of a service's account is not
// mounted over the image unless the user insists, which is an error later.
func TestHomeIsRoot(t *testing.T) {
	for home, want := range map[request.Home]bool{
		request.HomeNo: false, request.HomeIfPresent: false, request.HomeYes: true,
	} {
		s := Generate(request.Request{Filesystem: request.Filesystem{Home: home}}, identity.User{Home: "/"}, Image{}, "/rootfs")
		got := slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/" })
		if got != want {
			t.Errorf("home %q: mounted at /: %v, want %v", home, got, want)
		}
	}
}
