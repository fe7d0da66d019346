// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
)

// addAMD adds /dev/kfd and, of each of the step's GPUs, the render node and the card.
// What ROCm needs besides is in images.
func (p *plan) addAMD() error {
	p.addDevice("/dev/kfd")
	renders := p.amdRenders()
	for _, gpu := range p.GPUs.List {
		if gpu.Index >= len(renders) {
			return fmt.Errorf("Slurm gave the step GPU %d, and AMD's driver on this node has %d", gpu.Index, len(renders))
		}
		render := "renderD" + strconv.Itoa(renders[gpu.Index])
		if !p.addDevice("/dev/dri/" + render) {
			return fmt.Errorf("Slurm gave the step GPU %d, and this node has no /dev/dri/%s", gpu.Index, render)
		}
		cards, _ := filepath.Glob(p.path("/sys/class/drm/" + render + "/device/drm/card*"))
		for _, card := range cards {
			p.addDevice("/dev/dri/" + filepath.Base(card))
		}
	}
	return nil
}

// amdRenders returns the minor numbers of the node's GPUs in the order of ROCm, that
// of the kernel's topology (linux, drivers/gpu/drm/amd/amdkfd/kfd_topology.c): nodes
// without SIMD units are CPUs.
func (p *plan) amdRenders() []int {
	type node struct{ number, render int }
	var nodes []node
	paths, _ := filepath.Glob(p.path("/sys/class/kfd/kfd/topology/nodes/*/properties"))
	for _, path := range paths {
		values := readTable(path, " ")
		units, _ := strconv.Atoi(values["simd_count"]) // what is no number is none
		render, _ := strconv.Atoi(values["drm_render_minor"])
		number, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && units > 0 && render > 0 {
			nodes = append(nodes, node{number, render})
		}
	}
	slices.SortFunc(nodes, func(a, b node) int { return a.number - b.number })
	var renders []int
	for _, n := range nodes {
		renders = append(renders, n.render)
	}
	return renders
}
