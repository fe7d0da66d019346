// SPDX-License-Identifier: Apache-2.0

package sync

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// nodes are the requests of a step's nodes, which share an address.
func nodes(t *testing.T, size int, timeout time.Duration) []request.Request {
	t.Helper()
	secret, err := slurm.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	settings := config.Default().Sync
	settings.Timeout = config.Duration(timeout)
	settings.Ports = config.PortRange{First: 21000, Last: 29000}
	settings.Interface = "lo"
	var peers []slurm.Node
	for i := range size {
		peers = append(peers, slurm.Node{Name: fmt.Sprintf("n%d", i+1), Address: "127.0.0.1"})
	}
	var all []request.Request
	for i := range size {
		all = append(all, request.Request{Hooks: request.Hooks{Sync: &settings}, Nodes: request.Nodes{Secret: secret, Peers: peers, Own: i}})
	}
	return all
}

// pass lets all nodes pass, each with its failure, and returns what their tasks get.
func pass(all []request.Request, failures map[int]error) []error {
	results := make([]chan error, len(all))
	for i, r := range all {
		results[i] = make(chan error, 1)
		p := Hook{}.Begin(r)
		go func() { results[i] <- p.Wait(failures[i]) }()
	}
	var errs []error
	for _, r := range results {
		errs = append(errs, <-r)
	}
	return errs
}

func TestWait(t *testing.T) {
	if errs := pass(nodes(t, 4, time.Minute), nil); errors.Join(errs...) != nil {
		t.Errorf("Wait = %v", errs)
	}
}

// TestPassOfFailure checks that the tasks of the node that failed read the reason,
// and those of others the node as well.
func TestPassOfFailure(t *testing.T) {
	bad := fault.WithHint(errors.New("get image: no\nsuch image"), "look again")
	for i, err := range pass(nodes(t, 4, time.Minute), map[int]error{2: bad}) {
		want := "wait for the other nodes of the step: n3: get image: no; such image"
		if i == 2 {
			want = bad.Error()
		}
		if err == nil || err.Error() != want || fault.Hint(err) != "look again" {
			t.Errorf("node %d: %v, hint %q; want %s", i+1, err, fault.Hint(err), want)
		}
	}
}

// TestFailed checks that a node which still works learns of the failure of another,
// and that what it gave up for that is not taken for its own.
func TestFailed(t *testing.T) {
	all := nodes(t, 2, time.Minute)
	slow, failing := Hook{}.Begin(all[0]), Hook{}.Begin(all[1])
	go func() { _ = failing.Wait(errors.New("broken")) }()
	select {
	case <-slow.Failed():
	case <-time.After(30 * time.Second):
		t.Fatal("the node is not told")
	}
	if err := slow.Wait(fmt.Errorf("build: %w", hook.ErrFailedElsewhere)); err == nil || err.Error() != "wait for the other nodes of the step: n2: broken" {
		t.Errorf("Wait = %v", err)
	}
}

func TestTimeIsOver(t *testing.T) {
	all := nodes(t, 3, 200*time.Millisecond)
	for i, err := range pass(all[:2], nil) {
		if err == nil || err.Error() != "wait for the other nodes of the step: after 200ms nothing was heard of n3" || !strings.Contains(fault.Hint(err), "sync.ports") {
			t.Errorf("node %d: %v, hint %q", i+1, err, fault.Hint(err))
		}
	}
}

// TestOtherSettings checks that a node which was configured otherwise says so.
func TestOtherSettings(t *testing.T) {
	all := nodes(t, 2, 300*time.Millisecond)
	other := *all[1].Sync
	other.Ports = config.PortRange{First: 29001, Last: 29999}
	all[1].Sync, all[1].Differs = &other, other.DiffersFrom(*all[0].Sync)
	for i, err := range pass(all, nil) {
		want := "they have not started the step"
		if i == 1 {
			want = "sync.ports is 29001-29999 on this node and 21000-29000 where the step was submitted: all nodes must have the same"
		}
		if err == nil || !strings.HasPrefix(fault.Hint(err), want) {
			t.Errorf("node %d: %v, hint %q; want %s", i+1, err, fault.Hint(err), want)
		}
	}
}

// TestAlone checks that a step of one node neither waits nor listens.
func TestAlone(t *testing.T) {
	r := request.Request{Hooks: request.Hooks{Sync: &config.Sync{}}, Nodes: request.Nodes{Peers: []slurm.Node{{Name: "n1"}}}}
	if err := (Hook{}).Begin(r).Wait(nil); err != nil {
		t.Errorf("Wait = %v", err)
	}
	bad := errors.New("bad")
	if err := (Hook{}).Begin(r).Wait(bad); err != bad {
		t.Errorf("Wait = %v; want what it was given", err)
	}
}

func TestNoInterface(t *testing.T) {
	all := nodes(t, 2, 300*time.Millisecond)
	all[0].Sync.Interface = "none0"
	errs := pass(all, nil)
	if !strings.Contains(fmt.Sprint(errs[0]), "n1: find interface none0: ") {
		t.Errorf("Wait = %v; want the interface named", errs)
	}
}

func TestWanted(t *testing.T) {
	if (Hook{}).Wanted(request.Request{}) || !(Hook{}).Wanted(request.Request{Hooks: request.Hooks{Sync: &config.Sync{}}}) {
		t.Error("the hook is not wanted where it is asked for, and nowhere else")
	}
}
