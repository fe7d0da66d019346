// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/load"
	"github.com/brolga-hpc/brolga/pkg/image/pull"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/resolve"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/policy"
	"github.com/brolga-hpc/brolga/pkg/sandbox"
)

// loadLocal puts an image of a file into the user's cache.
func loadLocal(ctx context.Context, p policy.Policy, o load.Options) (string, error) {
	if o.Ref.Kind == ref.Directory {
		return "", fault.WithHint(fmt.Errorf("pull %s: a directory is used as it is", o.Ref), "there is nothing to do before a job")
	}
	if err := permitLocal(p, o.Ref); err != nil {
		return "", err
	}
	res, err := load.Load(ctx, o)
	return res.Digest, err
}

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
	r.Digest, err = fetch(ctx, conf, r, fetchOptions{
		cache:    *cache,
		have:     store.NewTiers(conf.Store, identity.User{}).Has, // says nothing about who may use it
		how:      resolve.Fetch{Platform: wanted, IfMissing: *missing, Offline: *offline},
		progress: *progress,
		confine:  func() error { return pullSandbox(conf, r, *cache).Enter() },
	})
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(resolve.Pulled{Image: r.String(), Digest: r.Digest})
	}
	fmt.Println(r)
	return nil
}

// fetchOptions say how an image gets into a cache.
type fetchOptions struct {
	cache    string
	have     func(digest string) bool // whose layers are not needed
	how      resolve.Fetch
	progress string       // one of pull.Styles
	confine  func() error // see [pull.Options]; nil where the process goes on
}

// bootID reports whether the holder of a lease is alive (package lease).
const bootID = "/proc/sys/kernel/random/boot_id"

// pullSandbox is what a pull keeps while it reads what a registry sends, or an archive:
// the network, the image cache, and what name resolution, TLS and signatures need. It runs no
// program any more and cannot read the user's home directory. What a site or a user
// has put elsewhere is named by these settings.
func pullSandbox(conf config.Config, r ref.Ref, cache string) sandbox.Sandbox {
	trusted := []string{os.Getenv("SSL_CERT_FILE")}
	trusted = append(trusted, strings.Split(os.Getenv("SSL_CERT_DIR"), ":")...)
	for _, site := range conf.Registries {
		trusted = append(trusted, site.CA)
	}
	for _, rule := range conf.Policy.Signatures {
		trusted = append(trusted, rule.Keys...)
	}
	// Users keep parts of the cache elsewhere, by links.
	own := append(sandbox.Change(cache, filepath.Join(cache, "blobs"), filepath.Join(cache, "blobs/sha256"), filepath.Join(cache, "lease")), sandbox.Read(bootID)...)
	box := sandbox.Of(conf.Sandbox, own, sandbox.Internet(), sandbox.Read(trusted...))
	if r.IsLocal() {
		box = sandbox.Of(conf.Sandbox, own, sandbox.Read(r.Path))
	}
	box.Network, box.Sealed = !r.IsLocal(), true
	return box
}

// confineLocal makes the cache, which the sandbox keeps, and enters it.
func confineLocal(o fetchOptions) error {
	if _, err := layout.Create(o.cache); err != nil {
		return err
	}
	return o.confine()
}

// fetch puts an image of a registry or of a file into the user's cache and returns
// its digest.
func fetch(ctx context.Context, conf config.Config, r ref.Ref, o fetchOptions) (string, error) {
	if r.IsLocal() && o.confine != nil {
		if err := confineLocal(o); err != nil {
			return "", err
		}
	}
	if r.IsLocal() {
		return loadLocal(ctx, conf.Policy, load.Options{Ref: r, Layout: o.cache, Have: o.have, Platform: o.how.Platform})
	}
	progress, err := pull.NewProgress(os.Stderr, o.progress)
	if err != nil {
		return "", err
	}
	res, err := pull.Pull(ctx, pull.Options{
		Ref:       r,
		Layout:    o.cache,
		Have:      o.have,
		IfMissing: o.how.IfMissing,
		Offline:   o.how.Offline,

		Credentials: &credential.Finder{Env: os.Environ()},
		Confine:     o.confine,
		Registries:  conf.Registries,
		Platform:    o.how.Platform,
		Policy:      pullPolicy(conf.Policy, r),
		Progress:    progress,
	})
	return res.Digest, err
}
