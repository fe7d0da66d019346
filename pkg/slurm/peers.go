// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/budget"
)

// Variables by which srun tells the helpers of a step what they need to speak to
// each other. The shim takes them out of the environment of the tasks.
const (
	// SecretVariable holds [Secret.Reveal] of the step.
	SecretVariable = "BROLGA_STEP_SECRET"
	// AddressesVariable holds what [Addresses] wrote.
	AddressesVariable = "BROLGA_STEP_ADDRESSES"
	// SyncVariable holds how the nodes of the step wait for each other, as the
	// configuration says where srun was called. It is for nodes that cannot read theirs.
	SyncVariable = "BROLGA_STEP_SYNC"
)

// Node is one node of a step.
type Node struct {
	// Name is Slurm's, Address what Slurm itself reaches it by: a number or a name
	// (slurm.conf(5), NodeAddr).
	Name, Address string
}

// Names returns the names of nodes, in their order.
func Names(nodes []Node) []string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return names
}

// Addresses writes the addresses of those nodes of a list of Slurm's that have one
// besides their name, as the value of [AddressesVariable]: "NAMES ADDRESSES", lists
// of Slurm's form and of the same length. Of an empty list it is all nodes.
func Addresses(list string, addresses map[string]string) (string, error) {
	names, err := ParseHostlist(list)
	if err != nil {
		return "", err
	}
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(addresses))
	}
	var known, at []string
	for _, name := range names {
		address := addresses[name]
		if address == "" || address == name || strings.ContainsAny(address, ", []") {
			continue
		}
		known, at = append(known, name), append(at, address)
	}
	return Hostlist(known) + " " + Hostlist(at), nil
}

// parseAddresses returns the addresses of nodes whose address is not their name.
func parseAddresses(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	malformed := fmt.Errorf("%s is malformed: unset it", AddressesVariable)
	first, second, ok := strings.Cut(text, " ")
	names, err1 := ParseHostlist(first)
	at, err2 := ParseHostlist(second)
	if err := errors.Join(err1, err2); !ok || err != nil || len(names) != len(at) {
		return nil, errors.Join(malformed, err)
	}
	addresses := map[string]string{}
	for i := range names {
		addresses[names[i]] = at[i]
	}
	return addresses, nil
}

// takeShared moves what is for the helpers out of the environment.
func (s *Step) takeShared() error {
	var errs []error
	if text, ok := s.Getenv(SecretVariable); ok {
		var err error
		s.Secret, err = parseSecret(text)
		errs = append(errs, err)
	}
	s.addresses, _ = s.Getenv(AddressesVariable)
	s.Sync, _ = s.Getenv(SyncVariable)
	s.Env = slices.DeleteFunc(s.Env, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return name == SecretVariable || name == AddressesVariable || name == SyncVariable
	})
	return errors.Join(errs...)
}

// Peers returns all nodes of the step, those of all components of a heterogeneous
// one, in Slurm's order, and this node's own place among them. The batch script and the
// shell of salloc have one node, however many the job has.
func (s Step) Peers() (nodes []Node, own int, err error) {
	// Steps whose nodes do not speak to each other never come here: the list comes from
	// the user, and costs time and memory.
	addresses, err := parseAddresses(s.addresses)
	if err != nil {
		return nil, 0, err
	}
	list, ok := s.Getenv("SLURM_STEP_NODELIST")
	if s.StartsSteps() || (!ok && s.NodeCount <= 1) {
		return []Node{newNode(s.Node, addresses)}, 0, nil
	}
	names, err := ParseHostlist(list)
	if err != nil {
		return nil, 0, fmt.Errorf("SLURM_STEP_NODELIST: %w", err)
	}
	own = -1
	seen := map[string]bool{}
	for i, name := range names {
		if seen[name] {
			return nil, 0, fmt.Errorf("several components of the step share node %s", name)
		}
		if seen[name] = true; name == s.Node {
			own = i
		}
		nodes = append(nodes, newNode(name, addresses))
	}
	if own < 0 || len(nodes) < int(s.NodeCount) {
		return nil, 0, fmt.Errorf("node %s is not one of the step's, which are %q, as SLURM_STEP_NODELIST says", s.Node, budget.Shorten(list))
	}
	return nodes, own, nil
}

func newNode(name string, addresses map[string]string) Node {
	if address := addresses[name]; address != "" {
		return Node{name, address}
	}
	return Node{name, name}
}
