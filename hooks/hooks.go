// SPDX-License-Identifier: Apache-2.0

// Package hooks lists the hooks that Brolga ships, in the order they run. A new
// hook is a directory beside this file and a line below.
package hooks

import (
	"github.com/brolga-hpc/brolga/hooks/batchscript"
	"github.com/brolga-hpc/brolga/hooks/device"
	"github.com/brolga-hpc/brolga/hooks/glibc"
	"github.com/brolga-hpc/brolga/hooks/mountset"
	"github.com/brolga-hpc/brolga/hooks/mpi"
	"github.com/brolga-hpc/brolga/hooks/pmix"
	"github.com/brolga-hpc/brolga/hooks/ssh"
	"github.com/brolga-hpc/brolga/hooks/sync"
	"github.com/brolga-hpc/brolga/hooks/x11"
	"github.com/brolga-hpc/brolga/pkg/hook"
)

// All returns the hooks.
func All() []hook.Hook {
	return []hook.Hook{
		batchscript.Hook{},
		glibc.Hook{}, // before those whose libraries may need it
		mountset.Hook{},
		mpi.Hook{},
		ssh.Hook{},
		pmix.Hook{},
		x11.Hook{},
		device.Hook{},
		sync.Hook{},
	}
}
