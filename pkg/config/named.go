// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Named is the part of [Config] about containers that have a name and are kept.
type Named struct {
	// Scope says for how long: one of the Scope constants.
	Scope string `toml:"scope"`
	// Directory holds them, on a disk of each node. It is root's and made when it
	// is missing.
	Directory string `toml:"directory"`
	// Size limits what is written to one of them.
	Size Size `toml:"size"`
	// Overcommit tells whether all of them may be promised more than the disk has.
	Overcommit bool `toml:"overcommit"`
	// Count is how many a user may have on a node, and UserSize what they may take
	// there for another one to be made; 0 is no limit.
	Count    int  `toml:"count"`
	UserSize Size `toml:"user_size"`
	// UserShare is how much of the disk, in percent of what other users leave, the
	// containers of a user are promised in all.
	UserShare int `toml:"user_share"`
	// Unused is for how long nobody used one that "brolga gc --containers" removes.
	Unused Duration `toml:"unused"`
	// Mke2fs is the program that makes their file systems.
	Mke2fs string `toml:"mke2fs"`
	// Squeue is the program that knows which jobs have not ended.
	Squeue string `toml:"squeue"`
}

// The values of [Named.Scope].
const (
	ScopeJob  = "job"  // until the job ends on the node
	ScopeUser = "user" // until it is removed
)

// MinNamed is what a file system needs for itself, and a little more.
const MinNamed = 16 << 20

func checkNamed(c Config) error {
	var errs []error
	if c.Named.Scope != ScopeJob && c.Named.Scope != ScopeUser {
		errs = append(errs, fmt.Errorf("named.scope = %q: want job or user", c.Named.Scope))
	}
	for _, p := range [][2]string{{"directory", c.Named.Directory}, {"mke2fs", c.Named.Mke2fs}, {"squeue", c.Named.Squeue}} {
		if !filepath.IsAbs(p[1]) || filepath.Clean(p[1]) != p[1] {
			errs = append(errs, fmt.Errorf("named.%s = %q: want an absolute path without . and ..", p[0], p[1]))
		}
	}
	if c.Named.Size < MinNamed {
		errs = append(errs, fmt.Errorf("named.size = %q: want %s or more", c.Named.Size, Size(MinNamed)))
	}
	if c.Named.Count <= 0 {
		errs = append(errs, errors.New("named.count: want more than zero"))
	}
	if c.Named.UserShare < 1 || c.Named.UserShare > 100 {
		errs = append(errs, fmt.Errorf("named.user_share = %d: want a percentage from 1 to 100", c.Named.UserShare))
	}
	if c.Named.Unused <= 0 {
		errs = append(errs, errors.New("named.unused: want more than zero"))
	}
	return errors.Join(errs...)
}
