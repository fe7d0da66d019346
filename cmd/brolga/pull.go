// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/pull"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// runPull fetches an image into the user's cache. Layers of an image that the
// store has are not fetched. The last line of standard output is the image's
// name with its digest.
func runPull(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	cache := fs.String("cache", "", "image cache `DIR`; default is the site's choice")
	missing := fs.Bool("if-missing", false, "do not ask whether a cached tag has changed")
	progress := fs.String("progress", "auto", "show progress in this `STYLE`: "+pull.Styles)
	quiet := fs.Bool("quiet", false, "the same as --progress=none")
	platform := fs.String("platform", "", "pull for `[OS/]ARCHITECTURE[/VARIANT]`; default is this machine's")
	if err := v.parse(fs, args, 1, 1); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	r, err := ref.Parse(fs.Arg(0))
	if err != nil {
		return err
	}
	if r.IsLocal() {
		return fmt.Errorf("pull %s: files and directories are not supported yet by this version", r)
	}
	if *cache == "" {
		if *cache, err = cacheDir(conf); err != nil {
			return err
		}
	}
	o := pull.Options{
		Ref:       r,
		Layout:    *cache,
		Have:      store.NewTiers(conf.Store, identity.User{}).Has, // says nothing about who may use it
		IfMissing: *missing,

		Credentials: &credential.Finder{Env: os.Environ()},
		Registries:  conf.Registries,
	}
	if *platform != "" {
		if o.Platform, err = layout.ParsePlatform(*platform); err != nil {
			return err
		}
	}
	if *quiet {
		*progress = "none"
	}
	if o.Progress, err = pull.NewProgress(os.Stderr, *progress); err != nil {
		return err
	}
	res, err := pull.Pull(ctx, o)
	if err != nil {
		return err
	}
	r.Digest = res.Digest
	fmt.Println(r)
	return nil
}
