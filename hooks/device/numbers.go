// SPDX-License-Identifier: Apache-2.0

package device

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// numbers says how variables such as CUDA_VISIBLE_DEVICES change.
//
// All runtimes count the GPUs that they can open, from 0, in the order on the bus:
// libcuda those with a /dev/nvidiaN, ROCr those nodes of /sys/class/kfd whose
// /dev/dri/renderD* is there (libhsakmt, topology.c), Level Zero the render nodes.
// So the second of the node's GPUs is number 0 in a container that shows it alone.
//
// Slurm writes the node's numbers, or, where the others are closed to the step
// (ConstrainDevices), the step's, which are the container's. It writes them for each
// task: not the list is changed here, but what its numbers mean.
//
// What the user or the site shows besides counts, too.
func numbers(r request.Request, kind, root string) []hook.Numbers {
	a := r.Accelerators
	shown, all := besides(r, root)
	for _, gpu := range a.GPUs.List {
		shown = append(shown, gpu.Index)
	}
	for _, name := range a.Names {
		of, device, _ := strings.Cut(name, "=")
		if of != kind || kind == "" {
			continue
		}
		index, err := strconv.Atoi(device)
		all = all || err != nil // a name such as "all"
		shown = append(shown, index)
	}
	slices.Sort(shown)
	shown = slices.Compact(shown)
	var changes []hook.Numbers
	for _, v := range a.GPUs.Numbers {
		if all && !v.Local {
			continue // the numbers stay the node's
		}
		n := hook.Numbers{Variable: v.Variable, New: map[int]int{}}
		for i, gpu := range a.GPUs.List {
			if v.Local {
				n.New[gpu.Position] = i
			} else {
				n.New[gpu.Index] = slices.Index(shown, gpu.Index)
			}
		}
		changes = append(changes, n)
	}
	return changes
}

// besides returns the numbers of NVIDIA's GPUs that are shown as device files, by
// container.devices or by the user, and whether it is all GPUs as far as that can be
// told.
func besides(r request.Request, root string) (shown []int, all bool) {
	var paths []string
	for _, pattern := range r.Devices {
		found, _ := filepath.Glob(filepath.Join(root, pattern)) // patterns have been checked
		for _, path := range found {
			paths = append(paths, "/"+strings.TrimPrefix(strings.TrimPrefix(path, root), "/"))
		}
	}
	for _, m := range r.Mounts {
		paths = append(paths, filepath.Clean(m.Source))
	}
	for _, path := range paths {
		if number, ok := strings.CutPrefix(path, "/dev/nvidia"); ok {
			if n, err := strconv.Atoi(number); err == nil {
				shown = append(shown, n)
			}
		}
		all = all || path == "/dev/dri"
	}
	return shown, all
}
