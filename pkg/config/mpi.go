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
	// Modules are directories with what the libraries load while they run, in the
	// syntax of mounts. They are shown, and what they need comes along.
	Modules []string `toml:"modules"`
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
		if !isName(m.Name) {
			errs = append(errs, fmt.Errorf("mpi.name = %q: %s", m.Name, wantName))
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

const wantName = "want a name of letters, digits and ._-, not a word for yes or no"

// isName tells whether the value of an option can stand for a name.
func isName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return name != "" && strings.Contains(letters, name[:1]) && strings.Trim(name, letters+"0123456789._-") == "" &&
		!slices.Contains([]string{"y", "yes", "true", "n", "no", "false"}, strings.ToLower(name))
}

func (m MPI) check() error {
	where := "mpi " + m.Name
	var errs []error
	if len(m.Libraries) == 0 {
		errs = append(errs, fmt.Errorf("%s: libraries: want at least one", where))
	}
	errs = append(errs, checkLibraries(where, slices.Concat(m.Libraries, m.Dependencies)))
	if m.Check != "" && !slices.Contains(MPIChecks, m.Check) {
		errs = append(errs, fmt.Errorf("%s: check = %q: want %s", where, m.Check, strings.Join(MPIChecks, ", ")))
	}
	return errors.Join(append(errs, checkAdditions(where, m.Devices, m.Env))...)
}

// checkLibraries checks how libraries of the host are named.
func checkLibraries(where string, libraries []string) error {
	var errs []error
	for _, path := range libraries {
		if path == "" || strings.Contains(path, "/") && (!filepath.IsAbs(path) || filepath.Clean(path) != path) {
			errs = append(errs, fmt.Errorf("%s: %q: want an absolute path without . and .., or a name such as libmpi.so.12", where, path))
		}
	}
	return errors.Join(errs...)
}

// checkAdditions checks what a container gets besides libraries and mounts.
func checkAdditions(where string, devices, env []string) error {
	var errs []error
	for _, pattern := range devices {
		if !isDevicePattern(pattern) {
			errs = append(errs, fmt.Errorf("%s: devices: %q: want a pattern below /dev", where, pattern))
		}
	}
	for _, variable := range env {
		if name, _, ok := strings.Cut(variable, "="); !ok || name == "" {
			errs = append(errs, fmt.Errorf("%s: env: %q: want NAME=VALUE", where, variable))
		}
	}
	return errors.Join(errs...)
}
