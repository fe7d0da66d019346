// SPDX-License-Identifier: Apache-2.0

// Package realm is what the SSH servers and clients of one step agree upon without
// speaking to each other: keys, ports, and who is who.
//
// Everything is derived from one secret that the nodes of the step share and that
// nobody else has (HKDF, RFC 5869). Nothing of it is the user's own, and all of it
// is of no use once the step has ended.
//
// # Ports
//
// A node may run several steps, and several nodes may have one address. A server
// takes the first port of a row ([Realm.Ports]) that is free; a client goes through
// the same row, and knows the server by its identification string ([Realm.Banner])
// before a word of SSH is spoken. docs/decisions/0011-ssh-ports.md compares this.
package realm

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Realm is what all nodes of a step know.
type Realm struct {
	// Key is the shared secret, 32 bytes for this purpose only.
	Key []byte
	// User is the only name that can log in.
	User string
	// Nodes are all of the step.
	Nodes []Node
	// First and Last are the ports that servers may use.
	First, Last uint16
}

// Node is one node of the step.
type Node struct {
	// Name is Slurm's. Address is where others reach it: a number or a name.
	Name, Address string
	// Also are other names for it.
	Also []string
}

// candidates is the number of ports that a server tries.
const candidates = 16

// derive returns bytes for a purpose and a node, which names have no NUL.
func (r Realm) derive(purpose, node string, length int) []byte {
	out, err := hkdf.Key(sha256.New, r.Key, nil, purpose+"\x00"+node, length)
	if err != nil {
		panic(fmt.Sprintf("derive %s: %v", purpose, err)) // only a length beyond 8160
	}
	return out
}

// HostKey returns the key by which a node's server is known.
func (r Realm) HostKey(node string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(r.derive("host key", node, ed25519.SeedSize))
}

// ClientKey returns the key by which servers know the step's user.
func (r Realm) ClientKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(r.derive("client key", "", ed25519.SeedSize))
}

// Banner returns the identification string of a node's server (RFC 4253, section
// 4.2), without the end of line. It tells the server from others, but is no proof.
func (r Realm) Banner(node string) string {
	return "SSH-2.0-Brolga_" + hex.EncodeToString(r.derive("banner", node, 8))
}

// Ports returns the ports that a node's server tries, in this order, each once.
func (r Realm) Ports(node string) []int {
	size := int(r.Last) - int(r.First) + 1
	want := min(candidates, size)
	var ports []int
	for bytes := r.derive("ports", node, 2048); len(bytes) > 0 && len(ports) < want; bytes = bytes[4:] {
		port := int(r.First) + int(binary.BigEndian.Uint32(bytes)%uint32(size))
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports
}

// Aliases returns what users may call each node: Slurm's name, that up to the first
// dot, and the address, where they mean no other node.
func (r Realm) Aliases() [][]string {
	count := map[string]int{}
	all := make([][]string, len(r.Nodes))
	for i, n := range r.Nodes {
		short, _, _ := strings.Cut(n.Name, ".")
		for _, name := range append([]string{n.Name, short, n.Address}, n.Also...) {
			if name != "" && !slices.Contains(all[i], name) {
				all[i] = append(all[i], name)
				count[name]++
			}
		}
	}
	for i, n := range r.Nodes {
		all[i] = slices.DeleteFunc(all[i], func(name string) bool { return name != n.Name && count[name] > 1 })
	}
	return all
}
