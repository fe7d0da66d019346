// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/wire"
)

// step makes the facts of a step from records KEY=VALUE.
func step(t *testing.T, records ...string) (Step, error) {
	t.Helper()
	var all []wire.Record
	for _, r := range records {
		key, value, _ := strings.Cut(r, "=")
		all = append(all, wire.Record{Key: key, Value: value})
	}
	s, _, err := FromRecords(all)
	return s, err
}

const shared = "env=BROLGA_STEP_SECRET=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

func TestPeers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		records []string
		want    []Node
		own     int
	}{
		{"addresses", []string{"node=n2", "nodes=3", "env=SLURM_STEP_NODELIST=n[1-3]", "env=BROLGA_STEP_ADDRESSES=n[1,3] 10.0.0.[1,7]"},
			[]Node{{"n1", "10.0.0.1"}, {"n2", "n2"}, {"n3", "10.0.0.7"}}, 1},
		{"no addresses", []string{"node=n2", "nodes=2", "env=SLURM_STEP_NODELIST=n[1-2]"}, []Node{{"n1", "n1"}, {"n2", "n2"}}, 1},
		{"a component", []string{"node=n3", "nodes=1", "env=SLURM_STEP_NODELIST=n[1-3]"}, []Node{{"n1", "n1"}, {"n2", "n2"}, {"n3", "n3"}}, 2},
		{"a batch script", []string{"node=n1", "nodes=1", "step=4294967291", "env=SLURM_STEP_NODELIST=x"}, []Node{{"n1", "n1"}}, 0},
		{"a shell of salloc's", []string{"node=n1", "nodes=1", "step=4294967290"}, []Node{{"n1", "n1"}}, 0},
		{"one node", []string{"node=n1", "nodes=1"}, []Node{{"n1", "n1"}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := step(t, tt.records...)
			if err != nil {
				t.Fatal(err)
			}
			if got, own, err := s.Peers(); err != nil || own != tt.own || !slices.Equal(got, tt.want) {
				t.Errorf("Peers = %v, %d, %v; want %v, %d", got, own, err, tt.want, tt.own)
			}
		})
	}
}

// long stands for names of some 100 MiB.
var long = "n[" + strings.Repeat("0", 1000) + "-100000]"

func TestPeersErrors(t *testing.T) {
	for _, tt := range []struct {
		err     string
		records []string
	}{
		{"node n9 is not one of the step's", []string{"node=n9", "nodes=2", "env=SLURM_STEP_NODELIST=n[1-2]"}},
		{"node n1 is not one of the step's", []string{"node=n1", "nodes=3", "env=SLURM_STEP_NODELIST=n[1-2]"}},
		{"node n1 is not one of the step's", []string{"node=n1", "nodes=2"}},
		{"several components of the step share node n1", []string{"node=n1", "nodes=1", "env=SLURM_STEP_NODELIST=n1,n1"}},
		{"SLURM_STEP_NODELIST: host list", []string{"node=n1", "nodes=2", "env=SLURM_STEP_NODELIST=n[1"}},
		{"BROLGA_STEP_ADDRESSES is malformed: unset it", []string{"node=n1", "nodes=1", "env=BROLGA_STEP_ADDRESSES=n1"}},
		{"BROLGA_STEP_ADDRESSES is malformed: unset it", []string{"node=n1", "nodes=1", "env=BROLGA_STEP_ADDRESSES=n[1-2] 10.0.0.1"}},
		{"BROLGA_STEP_ADDRESSES is malformed: unset it\nhost list", []string{"node=n1", "nodes=1", "env=BROLGA_STEP_ADDRESSES=" + long + " " + long}},
	} {
		t.Run(tt.err, func(t *testing.T) {
			s, err := step(t, tt.records...)
			if err != nil {
				t.Fatal(err)
			}
			if got, _, err := s.Peers(); err == nil || !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("Peers = %v, %v; want an error that begins %q", got, err, tt.err)
			}
		})
	}
}

// TestSharedIsTaken checks that what is for the helpers alone leaves the step's
// environment, which others get to see.
func TestSharedIsTaken(t *testing.T) {
	s, err := step(t, "env=A=b", shared, "env=BROLGA_STEP_ADDRESSES=n1 10.0.0.1", "env=BROLGA_STEP_SYNC=x", "env=C=d")
	if err != nil || s.Secret.IsZero() || s.Sync != "x" || !slices.Equal(s.Env, []string{"A=b", "C=d"}) {
		t.Errorf("FromRecords: secret %v, environment %q, %v", !s.Secret.IsZero(), s.Env, err)
	}
	if _, err := step(t, "env=BROLGA_STEP_SECRET="); err == nil || !strings.Contains(err.Error(), "malformed") {
		t.Errorf("FromRecords with an empty secret = %v; want an error", err)
	}
}

func TestAddresses(t *testing.T) {
	known := map[string]string{"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "n3", "n4": "a b", "n9": "10.0.9.9"}
	for _, tt := range []struct{ list, want string }{
		{"n[1-2]", "n[1-2] 10.0.0.[1-2]"},
		{"n[1-5]", "n[1-2] 10.0.0.[1-2]"},
		{"n5", " "},
		{"", "n[1-2,9] 10.0.0.[1-2],10.0.9.9"},
	} {
		got, err := Addresses(tt.list, known)
		if err != nil || got != tt.want {
			t.Errorf("Addresses(%s) = %q, %v; want %q", tt.list, got, err, tt.want)
		}
		if _, err := parseAddresses(got); err != nil {
			t.Errorf("parseAddresses(%q) = %v", got, err)
		}
	}
}
