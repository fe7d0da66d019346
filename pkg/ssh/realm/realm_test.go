// SPDX-License-Identifier: Apache-2.0

package realm

import (
	"bytes"
	"crypto/ed25519"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func node(name, address string) Node { return Node{Name: name, Address: address} }

func example() Realm {
	return Realm{
		Key: bytes.Repeat([]byte{7}, 32), User: "ada", First: 20000, Last: 29999,
		Nodes: []Node{node("n1", "192.0.2.1"), node("n2.cluster.example", "192.0.2.2")},
	}
}

// TestDerivation holds what nodes with different releases must agree upon, and that
// nothing is the same for two purposes, nodes or steps.
func TestDerivation(t *testing.T) {
	r, again := example(), example()
	if !r.HostKey("n1").Equal(again.HostKey("n1")) || !r.ClientKey().Equal(again.ClientKey()) || !slices.Equal(r.Ports("n1"), again.Ports("n1")) {
		t.Error("two nodes with the same secret do not agree")
	}
	other := example()
	other.Key = bytes.Repeat([]byte{8}, 32)
	seen := map[string]string{}
	for name, r := range map[string]Realm{"a step": r, "another step": other} {
		for what, key := range map[string]ed25519.PrivateKey{"client": r.ClientKey(), "n1": r.HostKey("n1"), "n2": r.HostKey("n2"), "none": r.HostKey("")} {
			if before, ok := seen[string(key)]; ok {
				t.Errorf("%s of %s has the key of %s", what, name, before)
			}
			seen[string(key)] = what + " of " + name
		}
	}
	if a, b := r.Banner("n1"), other.Banner("n1"); a == b || !strings.HasPrefix(a, "SSH-2.0-Brolga_") || a == r.Banner("n2") {
		t.Errorf("Banner = %q, %q", a, b)
	}
	if got, want := r.Banner("n1"), "SSH-2.0-Brolga_"+goldenBanner; got != want {
		t.Errorf("Banner = %q; want %q, as other releases say", got, want)
	}
}

func TestPorts(t *testing.T) {
	for _, tt := range []struct {
		first, last uint16
		count       int
	}{{20000, 29999, 16}, {20000, 20015, 16}, {20000, 20003, 4}, {20000, 20000, 1}, {65535, 65535, 1}} {
		r := example()
		r.First, r.Last = tt.first, tt.last
		ports := r.Ports("n1")
		sorted := slices.Compact(slices.Sorted(slices.Values(ports)))
		if len(ports) != tt.count || len(sorted) != tt.count || sorted[0] < int(tt.first) || sorted[len(sorted)-1] > int(tt.last) {
			t.Errorf("Ports from %d to %d = %v; want %d different ones", tt.first, tt.last, ports, tt.count)
		}
	}
}

func TestAliases(t *testing.T) {
	for _, tt := range []struct {
		name  string
		nodes []Node
		want  [][]string
	}{
		{"own addresses", example().Nodes, [][]string{{"n1", "192.0.2.1"}, {"n2.cluster.example", "n2", "192.0.2.2"}}},
		{"one address", []Node{node("n1", "127.0.0.1"), node("n2", "127.0.0.1")}, [][]string{{"n1"}, {"n2"}}},
		{"one short name", []Node{node("n1.a", ""), node("n1.b", "")}, [][]string{{"n1.a"}, {"n1.b"}}},
		{"the name is the address", []Node{node("n1", "n1")}, [][]string{{"n1"}}},
		{"other names", []Node{{Name: "n1", Address: "a", Also: []string{"localhost", "n2"}}, node("n2", "b")}, [][]string{{"n1", "a", "localhost"}, {"n2", "b"}}},
		{"an address that is another's name", []Node{node("n1", "n2"), node("n2", "")}, [][]string{{"n1"}, {"n2"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := (Realm{Nodes: tt.nodes}).Aliases(); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Aliases = %q; want %q", got, tt.want)
			}
		})
	}
}

// goldenBanner must not change: nodes of one step may have different releases.
const goldenBanner = "19da678b4879faa2"
