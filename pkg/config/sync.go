// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sync is the part of [Config] about nodes of a step that wait for each other.
type Sync struct {
	// Ports are the TCP ports that a node may listen on.
	Ports PortRange `toml:"ports"`
	// Fanout is the number of nodes that call one node.
	Fanout int `toml:"fanout"`
	// Timeout is how long the nodes wait for each other.
	Timeout Duration `toml:"timeout"`
	// Interface is the network interface to listen on; empty is all.
	Interface string `toml:"interface"`
	// Address is how a node is reached. {address} stands for what Slurm reaches it
	// by, {node} for its name.
	Address string `toml:"address"`
}

// AddressOf returns how a node is reached.
func (s Sync) AddressOf(node, address string) string {
	return strings.NewReplacer("{node}", node, "{address}", address).Replace(s.Address)
}

// String writes the settings as a line that a configuration may have.
func (s Sync) String() string {
	return fmt.Sprintf("sync = {ports = %q, fanout = %d, timeout = %q, interface = %q, address = %q}",
		s.Ports, s.Fanout, time.Duration(s.Timeout), s.Interface, s.Address)
}

// DiffersFrom names what must be the same on all nodes and is not in other, which is
// where the step was submitted; "" if all is.
func (s Sync) DiffersFrom(other Sync) string {
	var parts []string
	for _, v := range []struct {
		name        string
		here, there any
	}{{"ports", s.Ports, other.Ports}, {"fanout", s.Fanout, other.Fanout}, {"address", s.Address, other.Address}} {
		if v.here != v.there {
			parts = append(parts, fmt.Sprintf("sync.%s is %v on this node and %v where the step was submitted", v.name, v.here, v.there))
		}
	}
	return strings.Join(parts, ", ")
}

// ParseSync reads what [Sync.String] wrote, and checks it as a file's.
func ParseSync(text string) (Sync, error) {
	c, err := Parse("sync", []byte(text))
	return c.Sync, err
}

func checkSync(c Config) error {
	var errs []error
	if p := c.Sync.Ports; p.First < 1024 || p.Last < p.First {
		errs = append(errs, fmt.Errorf(`sync.ports = "%d-%d": want a range of ports from 1024 on, the lower one first`, p.First, p.Last))
	}
	if c.Sync.Fanout < 2 || c.Sync.Fanout > 256 {
		errs = append(errs, fmt.Errorf("sync.fanout = %d: want 2 to 256", c.Sync.Fanout))
	}
	if c.Sync.Timeout <= 0 {
		errs = append(errs, errors.New("sync.timeout: want more than nothing"))
	}
	if !strings.Contains(c.Sync.Address, "{address}") && !strings.Contains(c.Sync.Address, "{node}") {
		errs = append(errs, fmt.Errorf("sync.address = %q: all nodes would have one address; put {address} or {node} in it", c.Sync.Address))
	}
	if strings.ContainsAny(c.Sync.Interface, "/ ") {
		errs = append(errs, fmt.Errorf("sync.interface = %q: want the name of a network interface, or nothing for all", c.Sync.Interface))
	}
	return errors.Join(errs...)
}
