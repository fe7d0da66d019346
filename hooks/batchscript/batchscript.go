// SPDX-License-Identifier: Apache-2.0

// Package batchscript shows a batch script inside its container.
//
// slurmd writes the script of an sbatch job into its spool directory and the
// batch step executes it from there, so that directory has to exist in the
// container at the same path. Condition: the step is a batch step.
package batchscript

import (
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// Hook implements hook.Editor.
type Hook struct{}

// Name implements hook.Hook.
func (Hook) Name() string { return "batchscript" }

// Describe implements hook.Hook.
func (Hook) Describe() hook.Description {
	return hook.Description{Stage: hook.AtEdit, When: "batch steps", Effect: "mounts the directory of the batch script, read-only"}
}

// Wanted implements hook.Hook.
func (Hook) Wanted(r request.Request) bool { return r.Script != "" }

// Edit mounts the directory of the script read-only.
func (Hook) Edit(spec *specs.Spec, r request.Request) error {
	dir := filepath.Dir(r.Script)
	spec.Mounts = append(spec.Mounts, bundlespec.Bind(dir, dir, "ro"))
	return nil
}
