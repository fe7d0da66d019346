// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/fetch"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/pull"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/resolve"
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
	offline := fs.Bool("offline", false, "ask no registry: only verify what is cached")
	asJSON := fs.Bool("json", false, "print the name and the digest as JSON")
	quiet := fs.Bool("quiet", false, "the same as --progress=none")
	platform := fs.String("platform", "", "pull for `[OS/]ARCHITECTURE[/VARIANT]`; default is this machine's")
	if err := v.parse(fs, args, 1, 1); err != nil {
		return err
	}
	if err := command.Hide(); err != nil { // it will have passwords
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	r, err := parseImage(fs.Arg(0))
	if err != nil {
		return err
	}
	if *cache == "" {
		if *cache, err = cacheDir(conf); err != nil {
			return err
		}
	}
	wanted, err := layout.PlatformOr(*platform, layout.Host())
	if err != nil {
		return err
	}
	if *quiet {
		*progress = "none"
	}
	o := fetchOptions(conf, *cache)
	o.Have = store.NewTiers(conf.Store, identity.User{}).Has // says nothing about who may use it
	o.How = resolve.Fetch{Platform: wanted, IfMissing: *missing, Offline: *offline}
	o.Progress, o.Confine = *progress, true
	r.Digest, err = fetch.Image(ctx, r, o)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(resolve.Pulled{Image: r.String(), Digest: r.Digest})
	}
	fmt.Println(r)
	return nil
}

// fetchOptions are those for an image that the user who calls wants.
func fetchOptions(conf config.Config, cache string) fetch.Options {
	trusted := append([]string{os.Getenv("SSL_CERT_FILE")}, filepath.SplitList(os.Getenv("SSL_CERT_DIR"))...)
	return fetch.Options{Config: conf, Cache: cache, Credentials: &credential.Finder{Env: os.Environ()}, Warn: warn, Trusted: trusted}
}

// warn prints what a policy of the site only warns of.
func warn(r ref.Ref, err error) {
	fmt.Fprintf(os.Stderr, "brolga: warning: image %s: %s\n", r, fault.Line(err))
}
