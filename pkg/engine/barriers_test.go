// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// barrier is a hook that lets nobody through, or all.
type barrier struct {
	reason error
	failed chan struct{}
	got    *[]error
}

func (barrier) Name() string                         { return "barrier" }
func (barrier) Describe() hook.Description           { return hook.Description{} }
func (barrier) Wanted(request.Request) bool          { return true }
func (b barrier) Begin(request.Request) hook.Barrier { return b }
func (b barrier) Failed() <-chan struct{}            { return b.failed }
func (b barrier) Wait(failure error) error {
	*b.got = append(*b.got, failure)
	return errors.Join(b.reason, failure)
}

func TestBarriers(t *testing.T) {
	closed, failure := errors.New("closed"), errors.New("no container")
	for _, tt := range []struct {
		name    string
		reasons []error
		failure error
		want    []error
	}{
		{name: "no barrier"},
		{name: "no barrier and no container", failure: failure, want: []error{failure}},
		{name: "open", reasons: []error{nil, nil}},
		{name: "the second fails", reasons: []error{nil, closed}, want: []error{closed}},
		{name: "all are told that there is no container", reasons: []error{nil, nil}, failure: failure, want: []error{failure}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []error
			e := Engine{}
			for _, reason := range tt.reasons {
				e.Hooks = append(e.Hooks, barrier{reason: reason, got: &got})
			}
			told, err := e.newRun(nil).barriers.wait(tt.failure)
			if (err == nil) != (len(tt.want) == 0) {
				t.Errorf("wait = %v; want %v", err, tt.want)
			}
			for _, want := range tt.want {
				if !errors.Is(err, want) {
					t.Errorf("wait = %v; want %v", err, want)
				}
			}
			if len(got) != len(tt.reasons) || len(told) != len(tt.reasons) || (len(got) > 0 && got[0] != tt.failure) {
				t.Errorf("%d barriers were told %v, %d are in the log", len(got), got, len(told))
			}
		})
	}
}

// TestFailedBarrier checks that any barrier can end the work.
func TestFailedBarrier(t *testing.T) {
	failed := make(chan struct{})
	e := Engine{Hooks: []hook.Hook{barrier{failed: make(chan struct{})}, barrier{failed: failed}}}
	all := e.newRun(nil).barriers
	select {
	case <-all.failed:
		t.Fatal("the barriers have failed from the beginning")
	default:
	}
	close(failed)
	<-all.failed
	if (&Engine{}).newRun(nil).barriers.failed != nil {
		t.Error("there is something to wait for without barriers")
	}
}
