// SPDX-License-Identifier: Apache-2.0

package slurm

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// GPUs are those that Slurm gave to a step on this node: what all its tasks
// have together.
type GPUs struct {
	// List is ordered by Index.
	List []GPU
	// Numbers are the variables that tell programs which GPUs are theirs by
	// numbers. Those that hold names are not listed: names are the same everywhere.
	Numbers []GPUNumbers
}

// GPU is one of them.
type GPU struct {
	// Index is its place in the node's gres.conf, which for Slurm is the order on
	// the PCI bus.
	Index int
	// Position counts the step's from 0.
	Position int
	// ID is its name, GPU-UUID or MIG-UUID, where Slurm knows that.
	ID string
}

// GPUNumbers is a variable that lists GPUs by numbers, for all tasks.
type GPUNumbers struct {
	Variable string
	// Local says that Slurm counts the step's GPUs, since the others are closed to
	// it (cgroup.conf, ConstrainDevices). Otherwise it counts the node's.
	Local bool
}

// GPUVariables are what the runtimes of NVIDIA, AMD and Intel and of OpenCL go by.
// Slurm sets all but the last of them (slurm/src/plugins/gres/gpu/gres_gpu.c);
// sites copy them to that one.
var GPUVariables = []string{
	"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL", "HIP_VISIBLE_DEVICES",
}

// NVIDIAVisible is the variable by which users of other engines choose among GPUs.
const NVIDIAVisible = "NVIDIA_VISIBLE_DEVICES"

// GPUs returns the GPUs of the step. A step of srun must not go by SLURM_JOB_GPUS:
// that is what the batch script has on its own node.
func (s Step) GPUs() (GPUs, error) {
	source := "SLURM_STEP_GPUS"
	if s.StartsSteps() {
		source = "SLURM_JOB_GPUS"
	}
	text, _ := s.Getenv(source)
	if text == "" || s.Tasks == 0 { // without tasks, it is not the node that asks
		return GPUs{}, nil
	}
	var g GPUs
	for _, word := range strings.Split(text, ",") {
		index, err := strconv.ParseUint(word, 10, 16)
		if err != nil {
			return GPUs{}, fmt.Errorf("%s=%q: want numbers", source, text)
		}
		g.List = append(g.List, GPU{Index: int(index)})
	}
	slices.SortFunc(g.List, func(a, b GPU) int { return a.Index - b.Index })
	g.List = slices.Compact(g.List)
	for i := range g.List {
		g.List[i].Position = i
	}
	for _, name := range GPUVariables {
		if value, ok := s.Getenv(name); ok {
			g.take(name, strings.Split(value, ","))
		}
	}
	return g.narrowed(s)
}

// take learns from the value of a variable.
func (g *GPUs) take(variable string, words []string) {
	if len(words) != len(g.List) {
		return // the user's own
	}
	global, local := true, true
	for i, word := range words {
		gpu := &g.List[i]
		number, err := strconv.Atoi(word)
		switch {
		case err == nil:
			global, local = global && number == gpu.Index, local && number == i
		case strings.HasPrefix(word, "GPU-") || strings.HasPrefix(word, "MIG-"):
			gpu.ID, global, local = word, false, false
		default:
			global, local = false, false
		}
	}
	if global || local {
		g.Numbers = append(g.Numbers, GPUNumbers{variable, local})
	}
}

// narrowed leaves out what the user does not want by [NVIDIAVisible], whose numbers
// mean what they mean in Slurm's variables. Many images, and containers around
// this one, set it to "all" or "void", which therefore says nothing.
func (g GPUs) narrowed(s Step) (GPUs, error) {
	text, _ := s.Getenv(NVIDIAVisible)
	switch text {
	case "", "all", "void":
		return g, nil
	case "none":
		return GPUs{}, nil
	}
	words := strings.Split(text, ",")
	local := len(g.Numbers) > 0 && g.Numbers[0].Local
	var kept []GPU
	for _, gpu := range g.List {
		number := gpu.Index
		if local {
			number = gpu.Position
		}
		if slices.Contains(words, strconv.Itoa(number)) || gpu.ID != "" && slices.Contains(words, gpu.ID) {
			kept = append(kept, gpu)
		}
	}
	if len(kept) == 0 {
		return GPUs{}, errors.New(NVIDIAVisible + "=" + strconv.Quote(text) + ": none of the step's GPUs has such a number or name: unset it")
	}
	g.List = kept
	return g, nil
}
