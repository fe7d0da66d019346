// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// gate is a hook that lets nobody through, or all.
type gate struct {
	reason error
	shut   chan struct{}
	got    *[]error
}

func (gate) Name() string                         { return "gate" }
func (gate) Describe() hook.Description           { return hook.Description{} }
func (gate) Wanted(request.Request) bool          { return true }
func (g gate) Begin(request.Request) hook.Passage { return g }
func (g gate) Shut() <-chan struct{}              { return g.shut }
func (g gate) Pass(failure error) error {
	*g.got = append(*g.got, failure)
	return errors.Join(g.reason, failure)
}

func TestGates(t *testing.T) {
	closed, failure := errors.New("closed"), errors.New("no container")
	for _, tt := range []struct {
		name    string
		reasons []error
		failure error
		want    []error
	}{
		{name: "no gate"},
		{name: "no gate and no container", failure: failure, want: []error{failure}},
		{name: "open", reasons: []error{nil, nil}},
		{name: "the second is shut", reasons: []error{nil, closed}, want: []error{closed}},
		{name: "all are told that there is no container", reasons: []error{nil, nil}, failure: failure, want: []error{failure}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []error
			e := Engine{}
			for _, reason := range tt.reasons {
				e.Hooks = append(e.Hooks, gate{reason: reason, got: &got})
			}
			told, err := e.begin().pass(tt.failure)
			if (err == nil) != (len(tt.want) == 0) {
				t.Errorf("pass = %v; want %v", err, tt.want)
			}
			for _, want := range tt.want {
				if !errors.Is(err, want) {
					t.Errorf("pass = %v; want %v", err, want)
				}
			}
			if len(got) != len(tt.reasons) || len(told) != len(tt.reasons) || (len(got) > 0 && got[0] != tt.failure) {
				t.Errorf("%d gates were passed with %v, %d were told of", len(got), got, len(told))
			}
		})
	}
}

// TestShutGate checks that any gate can end the work.
func TestShutGate(t *testing.T) {
	shut := make(chan struct{})
	e := Engine{Hooks: []hook.Hook{gate{shut: make(chan struct{})}, gate{shut: shut}}}
	g := e.begin()
	select {
	case <-g.shut:
		t.Fatal("the gates are shut from the beginning")
	default:
	}
	close(shut)
	<-g.shut
	if (&Engine{}).begin().shut != nil {
		t.Error("there is something to wait for without gates")
	}
}
