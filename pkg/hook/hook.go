// SPDX-License-Identifier: Apache-2.0

// Package hook defines what a site or vendor adds to a container: a Go package
// under hooks/ that runs inside the helper, without a process of its own.
//
// A hook has a name, a condition and two moments. Edit changes the OCI runtime
// specification before anything is mounted; it is pure. Runtime runs in the
// helper, as root on the host, after libcontainer made the container's
// namespaces and mounts and before the container's root is switched to the
// rootfs (the OCI moment "createRuntime"). A runtime hook never executes a
// program of the image and follows no path of it.
package hook

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/request"
)

// Hook is one hook.
type Hook interface {
	// Name is what messages and settings call the hook.
	Name() string
	// Wanted tells whether the hook applies to the step.
	Wanted(r request.Request) bool
	// Edit changes the specification. It does no I/O.
	Edit(spec *specs.Spec, r request.Request) error
	// Runtime acts on the container whose state is given. A hook that has
	// nothing to do there returns nil.
	Runtime(state *specs.State) error
}

// Select returns the hooks that apply to the step, in order.
func Select(hooks []Hook, r request.Request) []Hook {
	var wanted []Hook
	for _, h := range hooks {
		if h.Wanted(r) {
			wanted = append(wanted, h)
		}
	}
	return wanted
}

// Edit lets each hook change the specification.
func Edit(hooks []Hook, spec *specs.Spec, r request.Request) error {
	for _, h := range hooks {
		if err := h.Edit(spec, r); err != nil {
			return fmt.Errorf("hook %s: %w", h.Name(), err)
		}
	}
	return nil
}
