// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// configVariable names the site configuration, for those who run brolga on a
// cluster whose file is elsewhere. What Slurm starts as root does not look at it.
const configVariable = "BROLGA_CONFIG"

// configFlag adds the option --config.
func configFlag(fs *flag.FlagSet) *string {
	return fs.String("config", os.Getenv(configVariable),
		"site configuration `FILE`; default $"+configVariable+" or "+config.DefaultPath+", if it exists")
}

// loadConfig reads the site configuration. Only the default file may be missing.
func loadConfig(path string) (config.Config, error) {
	if path != "" {
		return config.Load(path)
	}
	c, err := config.Load(config.DefaultPath)
	if errors.Is(err, fs.ErrNotExist) {
		return config.Default(), nil
	}
	return c, err
}

// cacheDir returns the image cache of the user who calls.
func cacheDir(c config.Config) (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", fmt.Errorf("find out who calls: %w", err)
	}
	return c.UserCache(u.Username, os.Getuid(), u.HomeDir), nil
}

// openStore returns the store and its owner's ids.
func openStore(c config.Config) (*store.Store, uint32, error) {
	u, err := user.Lookup(c.StoreOwner)
	if err != nil {
		return nil, 0, fmt.Errorf("look up store_owner: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, 0, fmt.Errorf("look up store_owner %s: %w", c.StoreOwner, err)
	}
	return store.New(c.Store, uint32(uid)), uint32(uid), nil
}
