// SPDX-License-Identifier: Apache-2.0

// Package device shows containers the devices that the user names
// (--container-device=VENDOR/CLASS=NAME) and the GPUs that Slurm gave to the step,
// with what belongs to them: libraries, programs and variables of their driver.
//
// Condition: the user names devices, or Slurm gave the step GPUs and the site has
// not switched that off (gpu.slurm). Settings: [cdi] and [gpu].
//
// What belongs to a device is what a CDI specification of the node says (cdi.go).
// On a node without a specification for GPUs it is what is known of NVIDIA's and
// AMD's drivers (nvidia.go, amd.go). The container is given what all its tasks
// have together; which part is a task's own, Slurm says in variables, whose numbers
// are made those of the container (numbers.go).
//
// The libraries are made known to the image's loader by covering the image's own of
// the same name, and by links in the directory where its C library is
// (libraries.go). No program of the image is executed for that, nor one that
// specifications of NVIDIA's tools name for it: what those do is known here
// (programs.go). What others name is run as the site's hooks are.
//
// All files of the host are mounted as the user sees them: nothing is shown that
// the user could not open outside. Which device may be used is decided by its owner
// and mode and by the step's cgroup, as outside.
package device

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/device"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/nodecache"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// Hook implements hook.CachedInspector. Its fields are for tests.
type Hook struct {
	// Root is where drivers are looked for; empty is [hostRoot].
	Root string
	// Program answers queries; empty is [device.Program].
	Program string
}

// hostRoot is the root directory of the host. The linker of a test cluster sets
// another, in which it plays drivers.
var hostRoot = "/"

func (h Hook) host() string {
	if h.Root == "" {
		return hostRoot
	}
	return h.Root
}

// Name implements hook.Hook.
func (Hook) Name() string { return "device" }

// Describe implements hook.Hook.
func (Hook) Describe() hook.Description {
	return hook.Description{
		Stage:  hook.AtInspect,
		When:   "--" + option.Device + ", or GPUs of Slurm's",
		Effect: "shows devices with their driver's libraries",
	}
}

// Wanted implements hook.Hook.
func (Hook) Wanted(r request.Request) bool { return r.Accelerators != nil }

// Edit takes from the image what it says of GPUs: Slurm says which are the step's,
// and who reads NVIDIA's variable shall not show them again.
func (Hook) Edit(spec *specs.Spec, r request.Request) error {
	if len(r.Accelerators.GPUs.List) == 0 {
		return nil
	}
	all := append([]string{slurm.NVIDIAVisible}, slurm.GPUVariables...)
	spec.Process.Env = slices.DeleteFunc(slices.Clone(spec.Process.Env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(all, name)
	})
	spec.Process.Env = append(spec.Process.Env, slurm.NVIDIAVisible+"=void")
	return nil
}

// Inputs implements hook.CachedInspector.
func (h Hook) Inputs(spec *specs.Spec, r request.Request) []string {
	text, _ := json.Marshal(r.Accelerators) // plain data
	capabilities, _ := slurm.Getenv(spec.Process.Env, config.NVIDIACapabilities)
	shown, all := besides(r, h.host())
	return []string{string(text), capabilities, fmt.Sprint(shown, all)}
}

// askLimit is how long brolga-parse may take. It takes milliseconds, unless a file
// system with specifications hangs.
const askLimit = 30 * time.Second

// Inspect finds the devices.
func (h Hook) Inspect(files *hook.Image, spec *specs.Spec, r request.Request) (hook.Findings, error) {
	p := plan{Accelerators: *r.Accelerators, root: h.host(), env: spec.Process.Env}
	p.look(specifications(p.CDI.Directories)...)
	answer, err := h.ask(query(p.Accelerators))
	if err == nil {
		err = p.addAnswer(answer)
	}
	byDriver := err == nil && answer.Kind == "" && len(p.GPUs.List) > 0
	if byDriver {
		err = p.addDriver()
	}
	if err != nil {
		return hook.Findings{}, err
	}
	p.addLibraries(files)
	if byDriver {
		p.found.Sources = nil // the kernel's files do not tell when they change
	}
	p.found.Numbers = numbers(r, answer.Kind, p.root)
	return p.found, nil
}

// query is for what the user names and, where GPUs are Slurm's, for those. A GPU of
// NVIDIA may be called by UUID or by index ("nvidia-ctk cdi generate
// --device-name-strategy"), others are called by index.
func query(a request.Accelerators) device.Query {
	q := device.Query{Directories: a.CDI.Directories, Names: a.Names, Kinds: a.GPU.Kinds}
	for _, gpu := range a.GPUs.List {
		names := []string{fmt.Sprint(gpu.Index)}
		switch {
		case strings.HasPrefix(gpu.ID, "MIG-"):
			names = []string{gpu.ID} // its index is no GPU's
		case gpu.ID != "":
			names = []string{gpu.ID, names[0]}
		}
		q.GPUs = append(q.GPUs, names)
	}
	return q
}

// ask asks for it, unless there is nothing that could answer.
func (h Hook) ask(q device.Query) (device.Answer, error) {
	if len(q.Names) == 0 && len(specifications(q.Directories)) == len(q.Directories) {
		return device.Answer{}, nil
	}
	program := h.Program
	if program == "" {
		program = config.ParserPath()
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), askLimit, fmt.Errorf("killed after %s", askLimit))
	defer cancel()
	return device.Ask(ctx, program, q)
}

// specifications returns the directories and what is in them.
func specifications(directories []string) []string {
	all := slices.Clone(directories)
	for _, dir := range directories {
		entries, _ := os.ReadDir(dir) // what cannot be read has none
		for _, e := range entries {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	return all
}

// plan collects what a container gets.
type plan struct {
	request.Accelerators
	root string
	// env is the image's.
	env   []string
	found hook.Findings
	// libraries are to be known to the image's loader.
	libraries []lib
	// compatible is the version of the driver for whose libraries newer ones of the
	// image may stand in (programs.go), or empty.
	compatible string
}

// addDriver adds Slurm's GPUs on a node without CDI.
func (p *plan) addDriver() error {
	switch {
	case p.exists("/proc/driver/nvidia/version"), p.exists("/dev/nvidiactl"):
		return p.addNVIDIA()
	case p.exists("/dev/kfd"):
		return p.addAMD()
	}
	p.warn("the step's GPUs are not shown: this node has no CDI specification for %s, nor a driver of NVIDIA's or AMD's", strings.Join(p.GPU.Kinds, ", "))
	return nil
}

// look notes files of the host before they are looked at.
func (p *plan) look(paths ...string) {
	p.found.Sources = append(p.found.Sources, nodecache.Look(paths)...)
}

func (p *plan) warn(format string, args ...any) {
	p.found.Warnings = append(p.found.Warnings, fmt.Sprintf(format, args...))
}

func (p *plan) note(format string, args ...any) {
	p.found.Notes = append(p.found.Notes, "device: "+fmt.Sprintf(format, args...))
}

func (p *plan) path(of string) string { return filepath.Join(p.root, of) }

func (p *plan) exists(path string) bool {
	_, err := os.Stat(p.path(path))
	return err == nil
}

// getenv returns a variable of the image.
func (p *plan) getenv(name string) string {
	value, _ := slurm.Getenv(p.env, name)
	return value
}

// capabilities returns the parts of NVIDIA's driver that are wanted: by the job, the
// image or the site.
func (p *plan) capabilities() []string {
	text := p.Capabilities
	if text == "" {
		text = p.getenv(config.NVIDIACapabilities)
	}
	if text == "" {
		return p.GPU.Capabilities
	}
	names := strings.Split(text, ",")
	for _, name := range names {
		if !slices.Contains(config.Capabilities, name) {
			p.warn("%s: %q is not one of %s", config.NVIDIACapabilities, name, strings.Join(config.Capabilities, ", "))
		}
	}
	return names
}
