// SPDX-License-Identifier: Apache-2.0

// Package x11 lets X clients in the container use the display of their step
// (srun --x11, salloc --x11).
//
// Slurm makes a file with the key to the display, in TmpFS or the home directory,
// and names it in XAUTHORITY; it is shown at the same path, read-only. The display
// itself is a port of the node, and so is there anyway. Condition: the step has
// DISPLAY and XAUTHORITY, by Slurm or from the user.
package x11

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// Hook implements hook.Editor.
type Hook struct{}

// Name implements hook.Hook.
func (Hook) Name() string { return "x11" }

// Describe implements hook.Hook.
func (Hook) Describe() hook.Description {
	return hook.Description{Stage: hook.AtEdit, When: "srun --x11", Effect: "mounts the file that XAUTHORITY names, read-only"}
}

// Wanted implements hook.Hook.
func (Hook) Wanted(r request.Request) bool { return r.XAuthority != "" }

// Edit mounts the file, which is opened as the user. A login node's, which the
// step's environment may name as well, is not on this node and left out.
func (Hook) Edit(spec *specs.Spec, r request.Request) error {
	spec.Mounts = append(spec.Mounts, bundlespec.Bind(r.XAuthority, r.XAuthority, "ro", bundlespec.AsUser, bundlespec.Optional))
	return nil
}
