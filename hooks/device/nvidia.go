// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/ldso"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// part is what belongs to one of [config.Capabilities] of NVIDIA's driver.
type part struct {
	name string
	// libraries are names without version; files are patterns of what is shown at
	// its own place, programs, sockets and descriptions, where the host has it.
	libraries, files []string
}

// parts are as NVIDIA's container library has them (libnvidia-container,
// src/nvc_info.c).
var parts = []part{
	{
		name:      "utility",
		libraries: []string{"libnvidia-ml", "libnvidia-cfg", "libnvidia-nscq"},
		files: []string{
			"/usr/bin/nvidia-smi", "/usr/bin/nvidia-debugdump", "/usr/bin/nvidia-persistenced", "/usr/bin/nv-fabricmanager",
			"/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket",
		},
	},
	{
		name: "compute",
		libraries: []string{
			"libcuda", "libcudadebugger", "libnvidia-opencl", "libnvidia-gpucomp", "libnvidia-ptxjitcompiler",
			"libnvidia-fatbinaryloader", "libnvidia-allocator", "libnvidia-compiler", "libnvidia-pkcs11",
			"libnvidia-pkcs11-openssl3", "libnvidia-nvvm",
		},
		files: []string{
			"/usr/bin/nvidia-cuda-mps-control", "/usr/bin/nvidia-cuda-mps-server", "/tmp/nvidia-mps",
			"/etc/OpenCL/vendors/nvidia.icd",
		},
	},
	{name: "video", libraries: []string{"libvdpau_nvidia", "libnvidia-encode", "libnvidia-opticalflow", "libnvcuvid"}},
	{
		name: "graphics",
		libraries: []string{
			"libnvidia-egl-wayland", "libnvidia-eglcore", "libnvidia-glcore", "libnvidia-tls", "libnvidia-glsi",
			"libnvidia-fbc", "libnvidia-rtcore", "libnvoptix", "libGLX_nvidia", "libEGL_nvidia", "libGLESv2_nvidia",
			"libGLESv1_CM_nvidia", "libnvidia-glvkspirv", "libnvidia-gpucomp",
		},
		files: []string{"/usr/share/glvnd/egl_vendor.d/10_nvidia.json", "/usr/share/vulkan/icd.d/nvidia_*.json", "/etc/vulkan/icd.d/nvidia_*.json"},
	},
	{name: "ngx", libraries: []string{"libnvidia-ngx"}},
}

// addNVIDIA adds the step's GPUs and the parts of NVIDIA's driver that are wanted.
func (p *plan) addNVIDIA() error {
	for _, name := range []string{"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"} {
		p.addDevice("/dev/" + name)
	}
	cards := p.nvidiaCards()
	var errs []error
	for _, gpu := range p.GPUs.List {
		errs = append(errs, p.addNVIDIACard(gpu, cards))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// Programs of the GPU itself, of the driver's version.
	p.addFiles("/lib/firmware/nvidia/*/gsp*.bin")
	wanted := p.capabilities()
	var libraries []string
	for _, part := range parts {
		if slices.Contains(wanted, part.name) || slices.Contains(wanted, "all") {
			libraries = append(libraries, part.libraries...)
			p.addFiles(part.files...)
		}
	}
	return p.addHostLibraries(libraries)
}

// addDevice shows a device of the host, if it is there, and tells whether it is.
func (p *plan) addDevice(path string) bool {
	if !p.exists(path) {
		return false
	}
	p.found.Mounts = append(p.found.Mounts, bundlespec.Bind(p.path(path), path, bundlespec.AsUser, bundlespec.Devices, "noexec"))
	return true
}

// addFiles shows files of the host that match patterns, at their own places.
func (p *plan) addFiles(patterns ...string) {
	for _, pattern := range patterns {
		paths, _ := filepath.Glob(p.path(pattern)) // patterns of ours are well formed
		for _, path := range paths {
			target := strings.TrimPrefix(path, strings.TrimSuffix(p.root, "/"))
			p.found.Mounts = append(p.found.Mounts, bundlespec.Bind(path, target, bundlespec.AsUser, bundlespec.Optional, "ro"))
		}
	}
}

// nvidiaCard is a GPU as the kernel module describes it.
type nvidiaCard struct{ minor, uuid string }

// nvidiaCards returns the node's GPUs in the order on the bus, by which names of
// directories sort, or none if the module does not tell.
func (p *plan) nvidiaCards() []nvidiaCard {
	var all []nvidiaCard
	paths, _ := filepath.Glob(p.path("/proc/driver/nvidia/gpus/*/information"))
	for _, path := range paths {
		values := readTable(path, ":")
		all = append(all, nvidiaCard{values["Device Minor"], values["GPU UUID"]})
	}
	return all
}

// readTable reads lines of the kernel's, each a name, the separator and a value.
func readTable(path, separator string) map[string]string {
	values := map[string]string{}
	f, err := os.Open(path)
	if err != nil {
		return values
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), separator); ok {
			values[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return values
}

// addNVIDIACard adds one of the step's GPUs, or the part of one that is a MIG device.
func (p *plan) addNVIDIACard(gpu slurm.GPU, cards []nvidiaCard) error {
	uuid, instance, isPart := strings.Cut(strings.TrimPrefix(gpu.ID, "MIG-"), "/")
	if strings.HasPrefix(gpu.ID, "MIG-") && !isPart {
		return fault.WithHint(fmt.Errorf("Slurm gave the step the MIG device %s, which can only be found in a CDI specification", gpu.ID),
			`the administrator must run "nvidia-ctk cdi generate --device-name-strategy=uuid" on the node`)
	}
	minor := fmt.Sprint(gpu.Index)
	switch i := slices.IndexFunc(cards, func(c nvidiaCard) bool { return c.uuid == uuid }); {
	case len(cards) == 0:
	case uuid != "" && i >= 0:
		minor = cards[i].minor
	case uuid == "" && gpu.Index < len(cards):
		minor = cards[gpu.Index].minor
	default:
		return fmt.Errorf("Slurm gave the step GPU %d %s, and NVIDIA's driver on this node has %d others", gpu.Index, gpu.ID, len(cards))
	}
	if !p.addDevice("/dev/nvidia" + minor) {
		return fmt.Errorf("Slurm gave the step GPU %d, and this node has no /dev/nvidia%s", gpu.Index, minor)
	}
	if isPart {
		return p.addInstance(minor, instance)
	}
	return nil
}

// addInstance adds the two files that open a MIG device, GI/CI, to a step (NVIDIA MIG
// user guide, "Device Nodes and Capabilities").
func (p *plan) addInstance(minor, instance string) error {
	gi, ci, _ := strings.Cut(instance, "/")
	at := "/proc/driver/nvidia/capabilities/gpu" + minor + "/mig/gi" + gi
	for _, path := range []string{at + "/access", at + "/ci" + ci + "/access"} {
		number := readTable(p.path(path), ":")["DeviceFileMinor"]
		if number == "" || !p.addDevice("/dev/nvidia-caps/nvidia-cap"+number) {
			return fmt.Errorf("Slurm gave the step the MIG device %s of GPU %s, and this node has no device file for it", instance, minor)
		}
	}
	return nil
}

// addHostLibraries adds libraries of the host, by their names without version. Those
// that a driver does not have are left out.
func (p *plan) addHostLibraries(bases []string) error {
	text, err := os.ReadFile(p.path(ldso.CachePath))
	var entries []ldso.Entry
	if err == nil {
		entries, err = ldso.ParseCache(text)
	}
	if err != nil {
		return fmt.Errorf("find the driver's libraries on this node: %w", err)
	}
	byFile := map[string]int{}
	seen := map[string]bool{}
	for _, e := range entries {
		name, ok := ldso.ParseName(e.Name)
		if !ok || !slices.Contains(bases, name.Base) || seen[e.Name] {
			continue
		}
		file, err := filepath.EvalSymlinks(p.path(e.Path))
		if err != nil {
			continue // as the loader passes it over
		}
		seen[e.Name] = true
		i, known := byFile[file]
		if !known {
			i = len(p.libraries)
			byFile[file] = i
			p.libraries = append(p.libraries, lib{host: file})
		}
		p.libraries[i].names = append(p.libraries[i].names, e.Name)
	}
	if len(byFile) == 0 {
		return fault.WithHint(fmt.Errorf("find the driver's libraries on this node: none is in %s", ldso.CachePath),
			"the administrator must run ldconfig there")
	}
	return nil
}
