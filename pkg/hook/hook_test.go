// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"maps"
	"reflect"
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
func (f fake) Describe() Description       { return Description{} }
func (f fake) Wanted(request.Request) bool { return f.wanted }
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

func TestAnnotations(t *testing.T) {
	step := map[string]string{"com.a.x": "step", "own": "1"}
	labels := map[string]string{"com.a.x": "image", "com.a.y": "image", "com.b": "image"}
	for _, tt := range []struct {
		name     string
		patterns []string
		want     map[string]string
	}{
		{"the site names none", nil, step},
		{"a pattern", []string{"com.a.*"}, map[string]string{"com.a.x": "step", "com.a.y": "image", "own": "1"}},
		{"a name", []string{"com.b"}, map[string]string{"com.a.x": "step", "com.b": "image", "own": "1"}},
		{"all", []string{"*"}, map[string]string{"com.a.x": "step", "com.a.y": "image", "com.b": "image", "own": "1"}},
	} {
		if got := Annotations(step, labels, tt.patterns); !maps.Equal(got, tt.want) {
			t.Errorf("%s: Annotations = %v; want %v", tt.name, got, tt.want)
		}
	}
}

// inspector is a fake that looks at the image.
type inspector struct {
	fake
	found Findings
}

func (i inspector) Inspect(*Image, *specs.Spec, request.Request) (Findings, error) {
	return i.found, i.err
}

func TestInspect(t *testing.T) {
	cause := errors.New("no such thing")
	hooks := []Hook{
		inspector{fake{name: "a"}, Findings{Env: []string{"A=1"}, Warnings: []string{"w"}, Devices: []string{"/dev/a"}}},
		fake{name: "b", err: cause},
		inspector{fake{name: "c"}, Findings{Env: []string{"A=2"}, Notes: []string{"n"}, Mounts: []specs.Mount{{Source: "/m"}}}},
	}
	got, err := Inspect(hooks, nil, nil, request.Request{}, Cached{})
	want := Findings{Env: []string{"A=1", "A=2"}, Warnings: []string{"w"}, Notes: []string{"n"}, Devices: []string{"/dev/a"}, Mounts: []specs.Mount{{Source: "/m"}}}
	if len(got.Laps) != 2 || got.Laps[0].Name != "a" || got.Laps[1].Name != "c" {
		t.Errorf("Inspect took %v; want a and c", got.Laps)
	}
	got.Laps = nil
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Inspect = %+v, %v; want %+v", got, err, want)
	}
	_, err = Inspect(append(hooks, inspector{fake{name: "d", err: cause}, Findings{}}), nil, nil, request.Request{}, Cached{})
	if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "hook d: ") {
		t.Errorf("Inspect = %v; want the hook's name and error", err)
	}
}
