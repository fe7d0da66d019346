// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	iofs "io/fs"
	"os"
	"os/user"
	"syscall"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/regular"
)

// configVariable names the site configuration, for those who run brolga on a
// cluster whose file is elsewhere. What Slurm starts as root does not look at it.
const configVariable = "BROLGA_CONFIG"

// configFlag adds the option --config.
func configFlag(fs *flag.FlagSet) *string {
	return fs.String("config", os.Getenv(configVariable),
		"site configuration `FILE`; default $"+configVariable+" or "+config.DefaultPath+", if it exists")
}

// maxConfig limits the size of a configuration.
const maxConfig = 4 << 20

// loadConfig reads the site configuration that --config names.
func loadConfig(path string) (config.Config, error) {
	c, _, err := config.Load(path, func(path string) ([]byte, error) { return regular.Read(path, maxConfig) })
	return c, err
}

// parseImage reads the name of an image. A relative path is made absolute.
func parseImage(arg string) (ref.Ref, error) {
	r, err := ref.Parse(arg)
	if err != nil || !r.IsRelative() {
		return r, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return ref.Ref{}, fmt.Errorf("find the working directory: %w", err)
	}
	return r.In(dir), nil
}

// cacheDir returns the image cache of the user who calls.
func cacheDir(c config.Config) (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", fmt.Errorf("find out who calls: %w", err)
	}
	return c.UserCache(u.Username, os.Getuid(), u.HomeDir), nil
}

// openCache opens the image cache of the user who calls. One that does not exist
// is an error that wraps [layout.ErrNotFound].
func openCache(c config.Config) (*layout.Layout, error) {
	dir, err := cacheDir(c)
	if err != nil {
		return nil, err
	}
	return layout.Open(dir)
}

// openStores returns the stores, and this node's copies, for their owner, whom
// root becomes for good: a file server may keep root out.
func openStores(c config.Config) (store.Tiers, error) {
	owner, err := store.LookupOwner(c.StoreOwner)
	if err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		err = errors.Join(syscall.Setgroups(nil), syscall.Setresgid(int(owner.GID), int(owner.GID), int(owner.GID)),
			syscall.Setresuid(int(owner.UID), int(owner.UID), int(owner.UID)))
		if err != nil {
			return nil, fmt.Errorf("become the store owner, %s: %w", c.StoreOwner, err)
		}
	}
	if uint32(os.Geteuid()) != owner.UID {
		return nil, fault.WithHint(fmt.Errorf("only root and %s may look into the store", c.StoreOwner), "without --store this is about your own images")
	}
	stores, err := store.NewTiers(c.Store, owner).Existing()
	if err != nil || c.StoreCopyTo == "" {
		return stores, err
	}
	copies := store.New(c.StoreCopyTo, owner)
	switch err := copies.CheckPlace(); {
	case errors.Is(err, iofs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("store_copy_to: %w", err)
	default:
		stores = append(stores, copies)
	}
	return stores, nil
}
