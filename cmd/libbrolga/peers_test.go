// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// TestShare checks that each step has a secret of its own.
func TestShare(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		got, err := share([]wire.Record{{Key: "env", Value: "A=b"}}, request.Request{})
		if err != nil || len(got) != 3 || got[0].Value != "A=b" || got[2] != (wire.Record{Key: "peers", Value: "1"}) {
			t.Fatalf("share = %v, %v", got, err)
		}
		secret, ok := strings.CutPrefix(got[1].Value, "BROLGA_STEP_SECRET=")
		if !ok || got[1].Key != "env" || len(secret) != 64 || seen[secret] {
			t.Errorf("share = %v; want a secret that no other step has", got)
		}
		seen[secret] = true
	}
}

// TestShareSync checks that nodes are told how those of the step wait.
func TestShareSync(t *testing.T) {
	sync := config.Default().Sync
	got, err := share(nil, request.Request{Hooks: request.Hooks{Sync: &sync}})
	if err != nil || !slices.Contains(got, wire.Record{Key: "env", Value: "BROLGA_STEP_SYNC=" + sync.String()}) {
		t.Errorf("share = %v, %v; want the settings", got, err)
	}
}

func TestLaunch(t *testing.T) {
	nodes := []wire.Record{
		{Key: "context", Value: "launch"}, {Key: "node_list", Value: "n[1-3]"},
		{Key: "node_name", Value: "n1"}, {Key: "node_address", Value: "10.0.0.1"},
		{Key: "node_name", Value: "n3"}, {Key: "node_address", Value: "10.0.0.3"},
		{Key: "node_name", Value: "n4"}, {Key: "node_address", Value: "10.0.0.4"},
	}
	want := []wire.Record{{Key: "env", Value: "BROLGA_STEP_ADDRESSES=n[1,3] 10.0.0.[1,3]"}}
	if got, err := launch(nodes); err != nil || !slices.Equal(got, want) {
		t.Errorf("launch = %v, %v; want %v", got, err, want)
	}
	if got, err := launch([]wire.Record{{Key: "node_list", Value: "n[1"}}); err == nil || !strings.HasPrefix(err.Error(), "find the nodes of the step: ") {
		t.Errorf("launch = %v, %v; want an error", got, err)
	}
	chaos := []wire.Record{{Key: "node_list", Value: "n[0-9999]"}}
	list := strings.Repeat("x", 20)
	for i := range 10000 {
		name := "n" + strconv.Itoa(i)
		chaos = append(chaos, wire.Record{Key: "node_name", Value: name}, wire.Record{Key: "node_address", Value: name + list})
	}
	if got, err := launch(chaos); err == nil || err.Error() != "the addresses of the job's nodes take more than 120 KiB" {
		t.Errorf("launch = %d records, %v; want an error", len(got), err)
	}
}
