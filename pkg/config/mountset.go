// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MountSet is a set of what a site shows of its hosts.
type MountSet struct {
	// Name is what users call it.
	Name string `toml:"name"`
	// Use says who gets it without asking: one of the Use constants, or empty for
	// the first.
	Use string `toml:"use"`
	// Annotation is NAME=VALUE. A step with it gets the set, one where NAME has
	// another value does not.
	Annotation string `toml:"annotation"`
	// Libraries replace the image's, as [MPI].Dependencies.
	Libraries []string `toml:"libraries"`
	// Mounts, Devices and Env are as those of [MPI].
	Mounts  []string `toml:"mounts"`
	Devices []string `toml:"devices"`
	Env     []string `toml:"env"`
}

// The values of [MountSet.Use].
const (
	UseAsked  = "asked"  // nobody
	UseAlways = "always" // all containers
	UseImage  = "image"  // containers of images that have one of the libraries
)

// FindMountSet returns the set with that name.
func (c Config) FindMountSet(name string) (MountSet, bool) {
	i := slices.IndexFunc(c.MountSets, func(s MountSet) bool { return s.Name == name })
	if i < 0 {
		return MountSet{}, false
	}
	return c.MountSets[i], true
}

func checkMountSets(c Config) error {
	var errs []error
	seen := map[string]bool{}
	for _, s := range c.MountSets {
		if !isName(s.Name) {
			errs = append(errs, fmt.Errorf("mount_set.name = %q: %s", s.Name, wantName))
		}
		if seen[s.Name] {
			errs = append(errs, fmt.Errorf("mount_set.name = %q: is there twice", s.Name))
		}
		seen[s.Name] = true
		errs = append(errs, s.check())
	}
	return errors.Join(errs...)
}

func (s MountSet) check() error {
	where := "mount_set " + s.Name
	errs := []error{
		checkLibraries(where, s.Libraries), checkAdditions(where, s.Devices, s.Env),
	}
	if !slices.Contains([]string{"", UseAsked, UseAlways, UseImage}, s.Use) {
		errs = append(errs, fmt.Errorf("%s: use = %q: want %s, %s or %s", where, s.Use, UseAsked, UseAlways, UseImage))
	}
	if s.Use == UseImage && len(s.Libraries) == 0 {
		errs = append(errs, fmt.Errorf("%s: use = %q: want libraries to look for in images", where, s.Use))
	}
	if name, _, ok := strings.Cut(s.Annotation, "="); s.Annotation != "" && (!ok || name == "") {
		errs = append(errs, fmt.Errorf("%s: annotation = %q: want NAME=VALUE", where, s.Annotation))
	}
	if len(s.Libraries)+len(s.Mounts)+len(s.Devices)+len(s.Env) == 0 {
		errs = append(errs, fmt.Errorf("%s: want libraries, mounts, devices or env", where))
	}
	return errors.Join(errs...)
}
