// SPDX-License-Identifier: Apache-2.0

package job

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// TestRead checks that the helper gets all that the library decided.
func TestRead(t *testing.T) {
	value := "b"
	want := Job{
		Config:     config.Default(),
		ConfigPath: "/etc/brolga/brolga.toml",
		Request: request.Request{
			Step: "5.0", Tasks: 2, UID: 4294967294, GID: 1001, Groups: []uint32{27},
			Image:   ref.Ref{Registry: "docker.io", Repository: "library/ubuntu", Tag: "24.04"},
			Mounts:  []request.Mount{{Mount: option.Mount{Source: "/a", Target: "/b", Flags: []string{"ro"}}, Site: true}},
			Home:    request.HomeYes,
			Devices: []string{"/dev/fuse"},
			Workdir: "/w", WorkdirFromJob: true,
			Writable: true, TmpfsSize: "25%",
			Env:    []option.EnvEdit{{Name: "A"}, {Name: "B", Value: &value}},
			Script: "/var/spool/slurmd/job00005/slurm_script",
		},
		Env: []string{"A=<&>", "EMPTY=", "LINES=a\nb"},
	}
	text, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Read(bytes.NewReader(text)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Read(%s) = %+v, %v; want %+v", text, got, err, want)
	}
	// The helper is started before the library has decided.
	if got, err := Read(io.MultiReader(bytes.NewReader(text[:9]), bytes.NewReader(text[9:]))); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Read in two parts = %+v, %v; want %+v", got, err, want)
	}
}

func TestReadErrors(t *testing.T) {
	for _, in := range []string{"", "{", `{"Request": 1}`, `{"Env": "A=b"}`} {
		t.Run(in, func(t *testing.T) {
			if got, err := Read(strings.NewReader(in)); err == nil || !strings.HasPrefix(err.Error(), "read the step's request: ") {
				t.Errorf("Read(%q) = %+v, %v; want an error", in, got, err)
			}
		})
	}
}
