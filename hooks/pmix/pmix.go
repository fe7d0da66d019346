// SPDX-License-Identifier: Apache-2.0

// Package pmix lets PMIx clients in the container find Slurm's PMIx server
// (srun --mpi=pmix), a part of slurmstepd.
//
// Clients read what the server knows of the job from files below SlurmdSpoolDir,
// which PMIX_SERVER_TMPDIR names, so that directory is shown at the same path.
// Slurm makes a second one below TmpFS for what the clients of a node share, such
// as Open MPI's session files. Nobody outside the step uses it, and under
// job_container/tmpfs tasks could not see Slurm's, so the container has a fresh
// one in memory at that path, and one in the place of TmpFS where it has no such
// directory, or none that can be written to. Condition: the step has such a server.
package pmix

import (
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// Hook implements hook.Editor.
type Hook struct{}

// Name implements hook.Hook.
func (Hook) Name() string { return "pmix" }

// Describe implements hook.Hook.
func (Hook) Describe() hook.Description {
	return hook.Description{Stage: hook.AtEdit, When: "srun --mpi=pmix", Effect: "mounts the directory of Slurm's PMIx server, and one for its clients"}
}

// Wanted implements hook.Hook.
func (Hook) Wanted(r request.Request) bool { return r.PMIx != nil && r.PMIx.ServerDir != "" }

// Edit mounts both directories. Clients lock files of the server's, so that one
// can be written to; it is opened as the user, to whom it belongs, and left out
// where it is not, because its name comes from the user's environment.
func (Hook) Edit(spec *specs.Spec, r request.Request) error {
	p := r.PMIx
	tmpfs := func(at, mode string) specs.Mount {
		return specs.Mount{
			Destination: at, Source: option.Tmpfs, Type: "tmpfs",
			Options: []string{mode, "size=" + r.TmpfsSize, "nosuid", "nodev"},
		}
	}
	base := tmpfs(filepath.Dir(p.ClientDir), "mode=1777")
	mounted := slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination == base.Destination })
	if r.Writable || mounted {
		base.Options = append(base.Options, bundlespec.Absent)
	}
	spec.Mounts = append(spec.Mounts,
		bundlespec.Bind(p.ServerDir, p.ServerDir, bundlespec.AsUser, bundlespec.Optional),
		base,
		tmpfs(p.ClientDir, "mode=0700"))
	return nil
}
