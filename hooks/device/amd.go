// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
		values := readWords(path)
		number, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if render := values["drm_render_minor"]; err == nil && values["simd_count"] > 0 && render > 0 {
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

// readWords reads lines "name number" of the kernel's.
func readWords(path string) map[string]int {
	values := map[string]int{}
	f, err := os.Open(path)
	if err != nil {
		return values
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.Atoi(value); err == nil {
			values[name] = n
		}
	}
	return values
}
