// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/request"
)

// fake is a hook that notes itself in the specification.
type fake struct {
	name   string
	wanted bool
	err    error
}

func (f fake) Name() string                { return f.name }
func (f fake) Wanted(request.Request) bool { return f.wanted }
func (f fake) Runtime(*specs.State) error  { return nil }
func (f fake) Edit(s *specs.Spec, _ request.Request) error {
	s.Hostname += f.name
	return f.err
}

func TestSelect(t *testing.T) {
	all := []Hook{fake{name: "a", wanted: true}, fake{name: "b"}, fake{name: "c", wanted: true}}
	names := ""
	for _, h := range Select(all, request.Request{}) {
		names += h.Name()
	}
	if names != "ac" {
		t.Errorf("Select chose %q; want those wanted, in order", names)
	}
}

func TestEdit(t *testing.T) {
	var s specs.Spec
	if err := Edit([]Hook{fake{name: "a"}, fake{name: "b"}}, &s, request.Request{}); err != nil || s.Hostname != "ab" {
		t.Errorf("Edit = %v, made %q; want the hooks in order", err, s.Hostname)
	}
	cause := errors.New("no such thing")
	err := Edit([]Hook{fake{name: "a", err: cause}, fake{name: "b"}}, &s, request.Request{})
	if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "hook a: ") || strings.HasSuffix(s.Hostname, "ab"+"ab") {
		t.Errorf("Edit = %v; want the first hook's error and no second hook", err)
	}
}
