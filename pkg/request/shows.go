// SPDX-License-Identifier: Apache-2.0

package request

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/option"
)

// MPI is an MPI of the host.
type MPI struct {
	config.MPI
	// Asked tells whether the user wants it. Otherwise it is the site's wish, and
	// an image that it does not fit keeps its own.
	Asked bool
	// Shows are its mounts, Modules its directories of modules.
	Shows, Modules []Mount
}

// MountSet is a set of what the site shows of the host.
type MountSet struct {
	config.MountSet
	// Asked tells whether the user wants it.
	Asked bool
	// Shows are its mounts. The destination of some begins with "/" and
	// [ProviderPath].
	Shows []Mount
}

// ProviderPath stands for the directory of libfabric's providers in a container.
const ProviderPath = "{fi_provider_path}"

// Glibc says whether to replace the C library.
type Glibc string

// The values of [Glibc]. With GlibcIfFits an image without the GNU C library is left
// alone without a word, because the user did not ask for it.
const (
	GlibcNo     Glibc = ""
	GlibcIfFits Glibc = "if-fits"
	GlibcYes    Glibc = "yes"
)

func glibc(c config.Config, o option.Set) Glibc {
	switch {
	case !o.Flag(option.Glibc, c.Container.Glibc):
		return GlibcNo
	case o.Has(option.Glibc):
		return GlibcYes
	}
	return GlibcIfFits
}

func (r *Request) resolveMPI(c config.Config, o option.Set) error {
	name, asked := o[option.MPI]
	switch {
	case !asked || name == "1":
		name = c.Container.MPI
	case name == "0":
		return nil
	}
	if name == "" && !asked {
		return nil
	}
	var names []string
	for _, m := range c.MPI {
		names = append(names, m.Name)
	}
	if len(names) == 0 {
		return fault.WithHint(fmt.Errorf("--%s: this cluster offers no MPI of the host", option.MPI),
			"leave it out to use the image's, or add [[mpi]] to the site configuration")
	}
	if name == "" {
		name = names[0]
	}
	stack, ok := c.FindMPI(name)
	if !ok {
		return fmt.Errorf("--%s: %q is not one of %s", option.MPI, name, strings.Join(names, ", "))
	}
	r.MPI = &MPI{MPI: stack, Asked: asked}
	var err, moduleErr error
	r.MPI.Shows, err = parseShows("mpi "+stack.Name, stack.Mounts)
	r.MPI.Modules, moduleErr = parseShows("mpi "+stack.Name, stack.Modules)
	return errors.Join(err, moduleErr)
}

// parseShows reads mounts that belong to a table of the site's configuration.
func parseShows(where string, entries []string) ([]Mount, error) {
	var all []Mount
	var errs []error
	where += " of the site configuration"
	for _, entry := range entries {
		mounts, err := option.ParseMounts(entry)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
		}
		for _, m := range mounts {
			if m.Source == option.Tmpfs || m.Source == option.Umount || m.IsRelative() {
				errs = append(errs, fmt.Errorf("%s: mount %q: want a path of the host", where, entry))
			}
			if isTaken(filepath.Clean(m.Target)) {
				errs = append(errs, fmt.Errorf("%s: destination %s is taken: choose another", where, m.Target))
			}
			all = append(all, Mount{m, true})
		}
	}
	return all, errors.Join(errs...)
}

func (r *Request) resolveMountSets(c config.Config, o option.Set) error {
	value, asked := o[option.MountSet]
	if value == "0" {
		return nil
	}
	var names []string
	for _, s := range c.MountSets {
		names = append(names, s.Name)
	}
	if asked && len(names) == 0 {
		return fmt.Errorf("--%s: this cluster offers no sets", option.MountSet)
	}
	wanted := strings.Split(value, ",")
	var errs []error
	for _, name := range wanted {
		if asked && value != "1" && !slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("--%s: %q is not one of %s", option.MountSet, name, strings.Join(names, ", ")))
		}
	}
	for _, s := range c.MountSets {
		set := MountSet{MountSet: s, Asked: asked && (value == "1" || slices.Contains(wanted, s.Name))}
		var err error
		set.Shows, err = parseShows("mount_set "+s.Name, withProviderPath(s.Mounts))
		errs = append(errs, err)
		r.MountSets = append(r.MountSets, set)
	}
	return errors.Join(errs...)
}

// withProviderPath makes destinations that begin with [ProviderPath] absolute ones.
func withProviderPath(entries []string) []string {
	var all []string
	for _, entry := range entries {
		all = append(all, strings.ReplaceAll(entry, ":"+ProviderPath, ":/"+ProviderPath))
	}
	return all
}
