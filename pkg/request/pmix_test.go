// SPDX-License-Identifier: Apache-2.0

package request

import (
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// resolvePMIx resolves a step that srun has prepared for PMIx.
func resolvePMIx(t *testing.T, env []string, options ...[2]string) (Request, error) {
	t.Helper()
	in := input{
		Options: append(options, [2]string{option.Image, "a"}),
		Step:    slurm.Step{UID: 7, TmpFS: "/scratch", Env: append(env, "SLURM_PMIX_MAPPING_SERV=(vector,(0,1,1))")},
	}
	return in.resolve(t)
}

func TestPMIx(t *testing.T) {
	for _, tt := range []struct {
		name           string
		env            []string // of the step
		task           []string // of a task
		server, client string
		set            []string
	}{
		{"no server", nil, []string{"PMIX_RANK=0"}, "", "", nil},
		{"its directories", nil, []string{"PMIX_SERVER_TMPDIR=/spool/n1/pmix.12.3/"}, "/spool/n1/pmix.12.3", "/scratch/spmix_appdir_7_12.3", nil},
		{"the user's choice", []string{"SLURM_PMIX_TMPDIR=/dev/shm"}, []string{"PMIX_SERVER_TMPDIR=/s/pmix.1.0"}, "/s/pmix.1.0", "/dev/shm/spmix_appdir_7_1.0", nil},
		{"not Slurm's", nil, []string{"PMIX_SERVER_TMPDIR=/etc"}, "", "", nil},
		{"a relative path", nil, []string{"PMIX_SERVER_TMPDIR=pmix.1.0"}, "", "", nil},
		{"below /proc", nil, []string{"PMIX_SERVER_TMPDIR=/proc/1/pmix.1.0"}, "", "", nil},
		{
			"the server's modules", nil,
			[]string{"PMIX_SERVER_TMPDIR=/s/pmix.1.0", "PMIX_SECURITY_MODE=munge,native", "PMIX_GDS_MODULE=hash", "PMIX_MCA_gds=ds21"},
			"/s/pmix.1.0", "/scratch/spmix_appdir_7_1.0", []string{"PMIX_MCA_psec=munge,native"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := resolvePMIx(t, tt.env)
			if err != nil || r.PMIx == nil || !r.NeedsTask() {
				t.Fatalf("Resolve = %+v, %v; want one that waits for PMIx", r.PMIx, err)
			}
			r.UID = 7
			r, err = r.WithPMIx(tt.task)
			p := r.PMIx
			if err != nil || p.ServerDir != tt.server || p.ClientDir != tt.client || !slices.Equal(p.Env, tt.set) {
				t.Errorf("WithPMIx gives %+v, %v; want %s, %s, %v", *p, err, tt.server, tt.client, tt.set)
			}
		})
	}
}

func TestPMIxRefuses(t *testing.T) {
	for _, name := range [][2]string{{option.RemapRoot, ""}, {option.Unshare, "net"}} {
		_, err := resolvePMIx(t, nil, name)
		if err == nil || !strings.Contains(err.Error(), "--mpi=pmix and --"+name[0]) {
			t.Errorf("Resolve with --%s = %v; want a refusal", name[0], err)
		}
	}
	for _, dir := range []string{"scratch", "/proc/1"} {
		r, err := resolvePMIx(t, []string{"SLURM_PMIX_TMPDIR=" + dir})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.WithPMIx([]string{"PMIX_SERVER_TMPDIR=/s/pmix.1.0"})
		if err == nil || !strings.HasPrefix(err.Error(), "SLURM_PMIX_TMPDIR: ") {
			t.Errorf("WithPMIx with %s = %v; want a refusal", dir, err)
		}
	}
	if _, err := resolvePMIx(t, nil, [2]string{option.Env, "PMIX_MCA_psec=native"}); err != nil {
		t.Errorf("a module of the client's cannot be chosen: %v", err)
	}
	if _, err := resolvePMIx(t, nil, [2]string{option.Env, "PMIX_RANK=0"}); err == nil {
		t.Error("the rank can be set")
	}
}
