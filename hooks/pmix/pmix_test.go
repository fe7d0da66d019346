// SPDX-License-Identifier: Apache-2.0

package pmix

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/request"
)

func TestWanted(t *testing.T) {
	for _, p := range []*request.PMIx{nil, {Base: "/tmp"}} {
		if (Hook{}).Wanted(request.Request{Hooks: request.Hooks{PMIx: p}}) {
			t.Errorf("Wanted with %+v", p)
		}
	}
	if !(Hook{}).Wanted(request.Request{Hooks: request.Hooks{PMIx: &request.PMIx{ServerDir: "/s/pmix.1.0"}}}) {
		t.Error("not Wanted where a server is")
	}
}

func TestEdit(t *testing.T) {
	for _, tt := range []struct {
		name     string
		writable bool
		mounted  []specs.Mount
		covers   bool
	}{
		{"a root that can be written to", true, nil, false},
		{"one that cannot", false, nil, true},
		{"one that cannot, but there", false, []specs.Mount{{Destination: "/tmp"}}, false},
	} {
		s := specs.Spec{Mounts: tt.mounted}
		r := request.Request{Filesystem: request.Filesystem{Writable: tt.writable, TmpfsSize: "1g"}, Hooks: request.Hooks{PMIx: &request.PMIx{ServerDir: "/s/pmix.1.0", ClientDir: "/tmp/spmix"}}}
		if err := (Hook{}).Edit(&s, r); err != nil {
			t.Fatal(err)
		}
		var at []string
		for _, m := range s.Mounts[len(tt.mounted):] {
			at = append(at, m.Destination)
		}
		if want := []string{"/s/pmix.1.0", "/tmp", "/tmp/spmix"}; !slices.Equal(at, want) {
			t.Fatalf("%s: Edit mounts at %v; want %v", tt.name, at, want)
		}
		server, base := s.Mounts[len(tt.mounted)], s.Mounts[len(tt.mounted)+1]
		if slices.Contains(server.Options, "ro") || !slices.Contains(server.Options, bundlespec.AsUser) {
			t.Errorf("%s: the server's directory is mounted with %v; want the user's, writable", tt.name, server.Options)
		}
		if slices.Contains(base.Options, bundlespec.Absent) == tt.covers {
			t.Errorf("%s: the base is mounted with %v", tt.name, base.Options)
		}
	}
}
