// SPDX-License-Identifier: Apache-2.0

package request

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// EnvChange is one of the site's changes to a variable.
type EnvChange struct {
	Name string
	// How is one of the values below; Value is empty for EnvUnset.
	How, Value string
}

// The values of [EnvChange.How].
const (
	EnvSet     = "set"
	EnvPrepend = "prepend"
	EnvAppend  = "append"
	EnvUnset   = "unset"
)

// resolveSiteEnv puts the site's changes in order: by kind, then by name.
func (r *Request) resolveSiteEnv(c config.Config) error {
	for _, table := range []struct {
		how    string
		values map[string]string
	}{{EnvSet, c.Env.Set}, {EnvPrepend, c.Env.Prepend}, {EnvAppend, c.Env.Append}} {
		for _, name := range slices.Sorted(maps.Keys(table.values)) {
			r.SiteEnv = append(r.SiteEnv, EnvChange{name, table.how, table.values[name]})
		}
	}
	for _, name := range c.Env.Unset {
		r.SiteEnv = append(r.SiteEnv, EnvChange{Name: name, How: EnvUnset})
	}
	var errs []error
	for _, change := range r.SiteEnv {
		if !slurm.Settable(change.Name) {
			errs = append(errs, fmt.Errorf("env.%s of the site configuration: %s belongs to Slurm", change.How, change.Name))
		}
	}
	return errors.Join(errs...)
}

// Apply returns the variable's value after the change, given that before it, which
// is empty where there was none.
func (c EnvChange) Apply(before string) string {
	switch {
	case c.How == EnvPrepend && before != "":
		return c.Value + ":" + before
	case c.How == EnvAppend && before != "":
		return before + ":" + c.Value
	}
	return c.Value
}
