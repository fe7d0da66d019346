// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/wire"
)

// TestFromRecords reads the message that the tests of the shim read as well.
func TestFromRecords(t *testing.T) {
	message, err := os.ReadFile("../../spank/test/testdata/call.records")
	if err != nil {
		t.Fatal(err)
	}
	records, err := wire.Unmarshal(message)
	if err != nil {
		t.Fatal(err)
	}
	got, rest, err := FromRecords(records)
	want := Step{
		JobID: 5, StepID: batchStep, Node: "n1", Tasks: 2, UID: 1000, GID: 1000, Groups: []uint32{1000, 27},
		Script: "/var/spool/slurmd/job00005/slurm_script",
		Env:    []string{"HOME=/home/u", "LC_ALL=C.UTF-8"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("FromRecords = %+v, %v; want %+v", got, err, want)
	}
	var keys []string
	for _, r := range rest {
		keys = append(keys, r.Key)
	}
	if got := strings.Join(keys, " "); got != "context config option value option value" {
		t.Errorf("FromRecords leaves the records %s", got)
	}
}

// TestCommand checks what steps have that are no batch steps.
func TestCommand(t *testing.T) {
	got, _, err := FromRecords([]wire.Record{{Key: "command", Value: "./app"}})
	if err != nil || got.Command != "./app" || got.Script != "" {
		t.Errorf("FromRecords = %+v, %v; want the command", got, err)
	}
}

func TestFromRecordsErrors(t *testing.T) {
	for _, tt := range []struct{ key, value string }{
		{"job", ""}, {"step", "x"}, {"tasks", "-1"}, {"uid", "4294967296"}, {"gid", "1e3"}, {"group", " 1"},
	} {
		t.Run(tt.key+"="+tt.value, func(t *testing.T) {
			_, _, err := FromRecords([]wire.Record{{Key: tt.key, Value: tt.value}})
			if err == nil || !strings.Contains(err.Error(), "record "+tt.key+"=") {
				t.Errorf("FromRecords = %v; want an error that names %s", err, tt.key)
			}
		})
	}
	_, _, err := FromRecords([]wire.Record{{Key: "job", Value: "x"}, {Key: "uid", Value: "y"}})
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("FromRecords = %v; want both mistakes", err)
	}
}

func TestID(t *testing.T) {
	for _, tt := range []struct {
		step uint32
		want string
	}{
		{0, "5.0"}, {17, "5.17"}, {4294967291, "5.batch"}, {4294967290, "5.interactive"},
	} {
		if got := (Step{JobID: 5, StepID: tt.step}).ID(); got != tt.want {
			t.Errorf("ID of step %d = %q; want %q", tt.step, got, tt.want)
		}
	}
}

func TestGetenv(t *testing.T) {
	s := Step{Env: []string{"AB=1", "A=first", "A=second", "EMPTY=", "NOVALUE", "E=a=b"}}
	for _, tt := range []struct {
		name, want string
		ok         bool
	}{
		{"A", "first", true}, {"AB", "1", true}, {"EMPTY", "", true}, {"E", "a=b", true},
		{"NOVALUE", "", false}, {"B", "", false}, {"a", "", false},
	} {
		if got, ok := s.Getenv(tt.name); got != tt.want || ok != tt.ok {
			t.Errorf("Getenv(%q) = %q, %v; want %q, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestOwns(t *testing.T) {
	for name, want := range map[string]bool{
		"SLURM_PROCID": true, "SLURMD_NODENAME": true, "PMI_FD": true, "PMIX_RANK": true, "PMI2_X": true,
		"BROLGA_PIN": true, "_SLURM_SPANK_OPTION_x": true, "SPANK_x": true,
		"PATH": false, "SLURM": false, "MYSLURM_X": false, "PMIX": false, "": false,
	} {
		if got := Owns(name); got != want {
			t.Errorf("Owns(%q) = %v; want %v", name, got, want)
		}
	}
}

func TestValidVariable(t *testing.T) {
	for name, want := range map[string]bool{
		"PATH": true, "a b": true, "BASH_FUNC_module%%": true, "ü": true,
		"": false, "A=B": false, "A\nB": false, "A\x00": false, "\x1b": false,
	} {
		if got := ValidVariable(name); got != want {
			t.Errorf("ValidVariable(%q) = %v; want %v", name, got, want)
		}
	}
}

func TestOfTask(t *testing.T) {
	for name, want := range map[string]bool{"SLURM_PROCID": true, "SLURM_LOCALID": true, "PMI_FD": true, "PMIX_RANK": true, "SLURM_JOB_ID": false, "SLURM_NODEID": false, "PMI": false} {
		if got := OfTask(name); got != want {
			t.Errorf("OfTask(%s) = %v; want %v", name, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	env := []string{"SLURM_RLIMIT_CORE=0", "SLURM_RLIMIT_AS=18446744073709551615", "SLURM_RLIMIT_STACK=x", "SLURM_RLIMIT_", "RLIMIT_CPU=1"}
	if got, want := Limits(env), map[string]uint64{"CORE": 0, "AS": 1<<64 - 1}; !maps.Equal(got, want) {
		t.Errorf("Limits = %v; want %v", got, want)
	}
	for name, want := range map[string]bool{"SLURM_RLIMIT_CORE": true, "SLURM_UMASK": true, "SLURM_JOB_ID": false} {
		if got := ForSlurm(name); got != want {
			t.Errorf("ForSlurm(%s) = %v; want %v", name, got, want)
		}
	}
}
