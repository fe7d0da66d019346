// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// MPI is an MPI of the host that can take the place of an image's.
type MPI struct {
	// Name is what users call it.
	Name string `toml:"name"`
	// Libraries are those that replace libraries of the image, Dependencies those
	// they need that replace the image's as well. Each is an absolute path or a
	// name that the host's ld.so.cache has.
	Libraries    []string `toml:"libraries"`
	Dependencies []string `toml:"dependencies"`
	// Check is one of [MPIChecks], or empty for the first.
	Check string `toml:"check"`
	// Mounts, Devices and Env are what a container with these libraries gets
	// besides, as container.mounts and container.devices; Env is NAME=VALUE.
	Mounts  []string `toml:"mounts"`
	Devices []string `toml:"devices"`
	Env     []string `toml:"env"`
}

// MPIChecks are how well the ABIs of a host's and an image's library must agree.
// The first is the default.
var MPIChecks = []string{"major", "full", "strict"}

// FindMPI returns the MPI with that name.
func (c Config) FindMPI(name string) (MPI, bool) {
	i := slices.IndexFunc(c.MPI, func(m MPI) bool { return m.Name == name })
	if i < 0 {
		return MPI{}, false
	}
	return c.MPI[i], true
}

func checkMPI(c Config) error {
	var errs []error
	seen := map[string]bool{}
	for _, m := range c.MPI {
		if !isMPIName(m.Name) {
			errs = append(errs, fmt.Errorf("mpi.name = %q: want a name of letters, digits and ._-, not a word for yes or no", m.Name))
		}
		if seen[m.Name] {
			errs = append(errs, fmt.Errorf("mpi.name = %q: is there twice", m.Name))
		}
		seen[m.Name] = true
		errs = append(errs, m.check())
	}
	if _, ok := c.FindMPI(c.Container.MPI); !ok && c.Container.MPI != "" {
		errs = append(errs, fmt.Errorf("container.mpi = %q: there is no [[mpi]] of that name", c.Container.MPI))
	}
	return errors.Join(errs...)
}

// isMPIName tells whether the value of an option can stand for a name.
func isMPIName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return name != "" && strings.Contains(letters, name[:1]) && strings.Trim(name, letters+"0123456789._-") == "" &&
		!slices.Contains([]string{"y", "yes", "true", "n", "no", "false"}, strings.ToLower(name))
}

func (m MPI) check() error {
	var errs []error
	if len(m.Libraries) == 0 {
		errs = append(errs, fmt.Errorf("mpi %s: libraries: want at least one", m.Name))
	}
	for _, path := range slices.Concat(m.Libraries, m.Dependencies) {
		if path == "" || strings.Contains(path, "/") && (!filepath.IsAbs(path) || filepath.Clean(path) != path) {
			errs = append(errs, fmt.Errorf("mpi %s: %q: want an absolute path without . and .., or a name such as libmpi.so.12", m.Name, path))
		}
	}
	if m.Check != "" && !slices.Contains(MPIChecks, m.Check) {
		errs = append(errs, fmt.Errorf("mpi %s: check = %q: want %s", m.Name, m.Check, strings.Join(MPIChecks, ", ")))
	}
	for _, pattern := range m.Devices {
		if !isDevicePattern(pattern) {
			errs = append(errs, fmt.Errorf("mpi %s: devices: %q: want a pattern below /dev", m.Name, pattern))
		}
	}
	for _, variable := range m.Env {
		if name, _, ok := strings.Cut(variable, "="); !ok || name == "" {
			errs = append(errs, fmt.Errorf("mpi %s: env: %q: want NAME=VALUE", m.Name, variable))
		}
	}
	return errors.Join(errs...)
}
