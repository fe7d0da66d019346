// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/parser"
)

// CDI is the part of [Config] about the Container Device Interface.
type CDI struct {
	// Directories have specifications. Later ones come first.
	Directories []string `toml:"directories"`
}

// GPU is the part of [Config] about GPUs.
type GPU struct {
	// Slurm shows steps the GPUs that Slurm gave to them.
	Slurm bool `toml:"slurm"`
	// Kinds are kinds of CDI devices, VENDOR/CLASS. The first that a node has
	// serves Slurm's GPUs.
	Kinds []string `toml:"kinds"`
	// Capabilities are the parts of NVIDIA's driver for those who name none.
	Capabilities []string `toml:"capabilities"`
}

// NVIDIACapabilities is the variable that names parts of NVIDIA's driver, of
// [Capabilities], separated by commas.
const NVIDIACapabilities = "NVIDIA_DRIVER_CAPABILITIES"

// Capabilities are the parts of NVIDIA's driver, as its container toolkit names
// them. What belongs to "compat32" and "display" is nothing here.
var Capabilities = []string{"compute", "graphics", "ngx", "utility", "video", "compat32", "display", "all"}

func checkCDI(c Config) error {
	var errs []error
	for _, dir := range c.CDI.Directories {
		if !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("cdi.directories: %q: want an absolute path", dir))
		}
	}
	return errors.Join(errs...)
}

func checkGPU(c Config) error {
	var errs []error
	for _, kind := range c.GPU.Kinds {
		vendor, class := parser.ParseQualifier(kind)
		if parser.ValidateVendorName(vendor) != nil || parser.ValidateClassName(class) != nil {
			errs = append(errs, fmt.Errorf("gpu.kinds: %q: want VENDOR/CLASS", kind))
		}
	}
	for _, name := range c.GPU.Capabilities {
		if !slices.Contains(Capabilities, name) {
			errs = append(errs, fmt.Errorf("gpu.capabilities: %q is not one of %s", name, strings.Join(Capabilities, ", ")))
		}
	}
	return errors.Join(errs...)
}
