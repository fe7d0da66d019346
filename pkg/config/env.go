// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Env is the part of [Config] that changes variables of tasks, after the image's
// and before the user's --container-env, in the order of the fields.
type Env struct {
	// Set gives variables a value.
	Set map[string]string `toml:"set"`
	// Prepend and Append put text in front of a value or behind it, with a colon
	// in between where there is one.
	Prepend map[string]string `toml:"prepend"`
	Append  map[string]string `toml:"append"`
	// Unset removes variables.
	Unset []string `toml:"unset"`
}

func checkEnv(c Config) error {
	var errs []error
	for _, table := range []struct {
		key   string
		names []string
	}{
		{"set", slices.Sorted(maps.Keys(c.Env.Set))},
		{"prepend", slices.Sorted(maps.Keys(c.Env.Prepend))},
		{"append", slices.Sorted(maps.Keys(c.Env.Append))},
		{"unset", c.Env.Unset},
	} {
		for _, name := range table.names {
			if !IsEnvName(name) {
				errs = append(errs, fmt.Errorf("env.%s: %q is not the name of a variable", table.key, name))
			}
			if table.key != "unset" && slices.Contains(c.Env.Unset, name) {
				errs = append(errs, fmt.Errorf("env.%s: %s is in env.unset, too", table.key, name))
			}
		}
	}
	return errors.Join(errs...)
}

// IsEnvName tells whether a shell could set the variable (POSIX, "Name").
func IsEnvName(name string) bool {
	const digits = "0123456789"
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
	return name != "" && strings.Trim(name, letters+digits) == "" && !strings.Contains(digits, name[:1])
}
