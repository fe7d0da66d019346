// SPDX-License-Identifier: Apache-2.0

// Package sync has the tasks of a step wait until the containers of all its nodes
// are ready, with all that hooks have started in them.
//
// Condition: the user asks for it (--container-sync) and the step has several nodes.
// Settings: [sync] in the site's configuration.
//
// The helpers of the nodes form a barrier (package barrier) with a key that is derived
// from the secret of the step. While they wait, a helper listens on a TCP port of the
// host's; nothing of the host is shown to the container.
package sync

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/brolga-hpc/brolga/pkg/barrier"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// Hook implements hook.BarrierHook.
type Hook struct{}

// Name implements hook.Hook.
func (Hook) Name() string { return "sync" }

// Describe implements hook.Hook.
func (Hook) Describe() hook.Description {
	return hook.Description{
		Stage:  hook.AtBarrier,
		When:   "--" + option.Sync,
		Effect: "starts tasks when the containers of all nodes are ready",
	}
}

// Wanted implements hook.Hook.
func (Hook) Wanted(r request.Request) bool { return r.Sync != nil }

// Begin joins the nodes, so that those that wait learn at once of one that fails.
func (Hook) Begin(r request.Request) hook.Barrier {
	if len(r.Peers) < 2 {
		return alone{}
	}
	listen, err := addressesOf(r.Sync.Interface)
	p := &nodeBarrier{differs: r.Differs, Barrier: barrier.Join(barrier.Config{
		Nodes:   reachedBy(*r.Sync, r.Peers),
		Own:     r.Own,
		Key:     r.Secret.Key("sync"),
		Fanout:  r.Sync.Fanout,
		Ports:   barrier.Ports{First: int(r.Sync.Ports.First), Last: int(r.Sync.Ports.Last)},
		Listen:  listen,
		Timeout: time.Duration(r.Sync.Timeout),
	})}
	if err != nil {
		p.Fail(err.Error(), "the site must set sync.interface to one that all nodes have")
	}
	return p
}

// reachedBy returns the nodes with the addresses that the site wants.
func reachedBy(s config.Sync, peers []slurm.Node) []slurm.Node {
	var nodes []slurm.Node
	for _, n := range peers {
		nodes = append(nodes, slurm.Node{Name: n.Name, Address: s.AddressOf(n.Name, n.Address)})
	}
	return nodes
}

// addressesOf returns the addresses of a network interface; of none, no addresses.
func addressesOf(name string) ([]string, error) {
	if name == "" {
		return nil, nil
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	all, err := i.Addrs()
	if err != nil {
		return nil, fmt.Errorf("find the addresses of interface %s: %w", name, err)
	}
	var addresses []string
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLinkLocalUnicast() {
			addresses = append(addresses, ip.IP.String())
		}
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("interface %s has no address", name)
	}
	return addresses, nil
}

// alone is the barrier of a step with one node.
type alone struct{}

func (alone) Failed() <-chan struct{}  { return nil }
func (alone) Wait(failure error) error { return failure }

// nodeBarrier is the barrier of a step with several nodes.
type nodeBarrier struct {
	*barrier.Barrier
	differs string // in what the node is not as the one where the step was submitted
}

// Failed implements hook.Barrier. Nothing is let through before this node is ready.
func (p *nodeBarrier) Failed() <-chan struct{} { return p.Done() }

// Wait implements hook.Barrier. The tasks of a node that has failed read why; those
// of others read its name as well.
func (p *nodeBarrier) Wait(failure error) error {
	defer p.Close()
	if failure == nil {
		p.Ready()
	} else {
		p.Fail(fault.Line(failure), fault.Hint(failure))
	}
	<-p.Done()
	var f *barrier.Failure
	switch err := p.Err(); {
	case failure != nil && !errors.Is(failure, hook.ErrFailedElsewhere):
		return failure
	case !errors.As(err, &f):
		return err
	}
	return fault.WithHint(fmt.Errorf("wait for the other nodes of the step: %w", f), p.hint(f))
}

// hint says what to do about a failure.
func (p *nodeBarrier) hint(f *barrier.Failure) string {
	switch {
	case f.Node != "":
		return f.Hint
	case len(f.Silent) > 0 && p.differs != "":
		return p.differs + ": all nodes must have the same"
	case len(f.Silent) == 0:
		return "their images may take longer to prepare than the site lets nodes wait (sync.timeout); pull and run them once before"
	}
	return "they have not started the step, or something between the nodes keeps out what they say to each other (sync.ports of the site configuration); their slurmd's log tells"
}
