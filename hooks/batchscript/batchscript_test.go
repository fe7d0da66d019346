// SPDX-License-Identifier: Apache-2.0

package batchscript

import (
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/request"
)

func TestWanted(t *testing.T) {
	if (Hook{}).Wanted(request.Request{}) {
		t.Error("Wanted in a step without script")
	}
	if !(Hook{}).Wanted(request.Request{Program: request.Program{Script: "/s/slurm_script"}}) {
		t.Error("not Wanted in a batch step")
	}
}

func TestEdit(t *testing.T) {
	s := specs.Spec{Mounts: []specs.Mount{{Destination: "/first"}}}
	if err := (Hook{}).Edit(&s, request.Request{Program: request.Program{Script: "/var/spool/slurmd/job00005/slurm_script"}}); err != nil {
		t.Fatal(err)
	}
	const dir = "/var/spool/slurmd/job00005"
	want := specs.Mount{
		Destination: dir, Source: dir, Type: "bind",
		Options: []string{"ro", "rbind", "rslave", "nosuid", "nodev"},
	}
	if len(s.Mounts) != 2 || !reflect.DeepEqual(s.Mounts[1], want) {
		t.Errorf("Edit made the mounts %+v; want one more, %+v", s.Mounts, want)
	}
}
