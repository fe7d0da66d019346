// SPDX-License-Identifier: Apache-2.0

package request

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// PMIx is what tasks need to find the PMIx server of their step, which is a part
// of slurmstepd (srun --mpi=pmix).
type PMIx struct {
	// Base is the directory in which Slurm makes ClientDir.
	Base string
	// ServerDir is where the server keeps what clients read, and ClientDir where
	// clients of a node keep what they share, both empty before [Request.WithPMIx].
	ServerDir, ClientDir string
	// Env are variables for the tasks besides those of Slurm.
	Env []string
}

// Variables of the step, by Slurm's plugin (src/plugins/mpi/pmix in Slurm).
const (
	pmixMapping = "SLURM_PMIX_MAPPING_SERV" // srun sets it for the server
	pmixTmpdir  = "SLURM_PMIX_TMPDIR"       // the user's choice of Base
)

// pmix returns what is known of a PMIx server before Slurm has started it, or nil
// where it will start none.
func pmix(s slurm.Step) *PMIx {
	if _, ok := s.Getenv(pmixMapping); !ok || s.TmpFS == "" {
		return nil
	}
	base, ok := s.Getenv(pmixTmpdir)
	if !ok {
		base = s.TmpFS
	}
	return &PMIx{Base: base}
}

func (r *Request) checkPMIx() error {
	switch {
	case r.PMIx == nil:
	case r.RemapRoot:
		return fault.WithHint(fmt.Errorf("--mpi=pmix and --%s cannot be used together", option.RemapRoot),
			"Slurm's PMIx server knows its tasks by their user; leave one of the two out")
	case r.Unshares("net"):
		return fault.WithHint(fmt.Errorf("--mpi=pmix and --%s=net cannot be used together", option.Unshare),
			"tasks speak to Slurm's PMIx server by the node's network; leave one of the two out")
	}
	return nil
}

// completed adds what a task says: task is its environment. Where there is no
// server, nothing is added: a variable of srun's can be inherited by steps
// without one.
func (p PMIx) completed(task []string, uid uint32) (PMIx, error) {
	dir, ok := slurm.Getenv(task, "PMIX_SERVER_TMPDIR")
	if !ok {
		return p, nil
	}
	dir = filepath.Clean(dir)
	step, ok := strings.CutPrefix(filepath.Base(dir), "pmix.")
	if !ok || !filepath.IsAbs(dir) || isTaken(filepath.Dir(dir)) {
		return p, nil // not Slurm's
	}
	p.ServerDir, p.Env = dir, modules(task)
	if !filepath.IsAbs(p.Base) {
		return p, errors.New(pmixTmpdir + ": want an absolute path")
	}
	p.ClientDir = filepath.Join(p.Base, fmt.Sprintf("spmix_appdir_%d_%s", uid, step))
	if isTaken(p.ClientDir) {
		return p, fmt.Errorf("%s: directory %s is taken: choose another", pmixTmpdir, p.Base)
	}
	return p, nil
}

// modules has clients choose among the modules that the server uses, which may
// not be those that the image's library would choose, unless the task says what
// to choose.
func modules(task []string) []string {
	var env []string
	for _, m := range [][2]string{
		{"PMIX_MCA_psec", "PMIX_SECURITY_MODE"}, {"PMIX_MCA_gds", "PMIX_GDS_MODULE"}, {"PMIX_MCA_ptl", "PMIX_PTL_MODULE"},
	} {
		_, given := slurm.Getenv(task, m[0])
		if value, ok := slurm.Getenv(task, m[1]); ok && !given {
			env = append(env, m[0]+"="+value)
		}
	}
	return env
}
