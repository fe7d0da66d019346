// SPDX-License-Identifier: Apache-2.0

package device

import (
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
func numbers(a request.Accelerators, kind string) []hook.Numbers {
	// The node's numbers of what is shown.
	var shown []int
	for _, gpu := range a.GPUs.List {
		shown = append(shown, gpu.Index)
	}
	for _, name := range a.Names {
		of, device, _ := strings.Cut(name, "=")
		if of != kind || kind == "" {
			continue
		}
		index, err := strconv.Atoi(device)
		if err != nil {
			return nil // such as "all": the numbers stay the node's
		}
		shown = append(shown, index)
	}
	slices.Sort(shown)
	shown = slices.Compact(shown)
	var all []hook.Numbers
	for _, v := range a.GPUs.Numbers {
		n := hook.Numbers{Variable: v.Variable, New: map[int]int{}}
		for i, gpu := range a.GPUs.List {
			if v.Local {
				n.New[gpu.Position] = i
			} else {
				n.New[gpu.Index] = slices.Index(shown, gpu.Index)
			}
		}
		all = append(all, n)
	}
	return all
}
