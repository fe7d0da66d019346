// SPDX-License-Identifier: Apache-2.0

// Package fetch puts an image into a user's image cache, wherever it comes from: it is what
// "brolga pull" does, and "brolga run" where the cache does not answer. Identity: the user.
package fetch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/load"
	"github.com/brolga-hpc/brolga/pkg/image/pull"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/resolve"
	"github.com/brolga-hpc/brolga/pkg/sandbox"
)

// Options say how an image gets into a cache.
type Options struct {
	Config config.Config
	// Cache is the directory of the cache.
	Cache string
	// Have reports whether the layers of an image are not needed.
	Have func(digest string) bool
	How  resolve.Fetch
	// Progress is one of pull.Styles.
	Progress string
	// Credentials finds what to log in with.
	Credentials *credential.Finder
	// Warn gets what the site's policy only warns of.
	Warn Warn
	// Confine takes from this process what it does not need, before anything is read that
	// a registry or an archive has. It cannot be undone.
	Confine bool
	// Trusted are files and directories with certificates, in addition to the system's.
	Trusted []string
}

// Image fetches the image, and returns the digest of what the name points to.
func Image(ctx context.Context, r ref.Ref, o Options) (string, error) {
	if r.IsLocal() {
		return o.loadLocal(ctx, r)
	}
	progress, err := pull.NewProgress(os.Stderr, o.Progress)
	if err != nil {
		return "", err
	}
	res, err := pull.Pull(ctx, pull.Options{
		Ref:       r,
		Layout:    o.Cache,
		Have:      o.Have,
		IfMissing: o.How.IfMissing,
		Offline:   o.How.Offline,

		Credentials: o.Credentials,
		Confine:     o.confine(r),
		Registries:  o.Config.Registries,
		Platform:    o.How.Platform,
		Policy:      Policy(o.Config.Policy, r, o.Warn),
		Progress:    progress,
	})
	return res.Digest, err
}

// loadLocal puts an image of a file into the cache.
func (o Options) loadLocal(ctx context.Context, r ref.Ref) (string, error) {
	if o.Confine {
		// The sandbox keeps the cache, which must be there.
		if _, err := layout.Create(o.Cache); err != nil {
			return "", err
		}
		if err := o.sandbox(r).Enter(); err != nil {
			return "", err
		}
	}
	if r.Kind == ref.Directory {
		return "", fault.WithHint(fmt.Errorf("pull %s: a directory is used as it is", r), "there is nothing to do before a job")
	}
	if err := permitLocal(o.Config.Policy, r, o.Warn); err != nil {
		return "", err
	}
	res, err := load.Load(ctx, load.Options{Ref: r, Layout: o.Cache, Have: o.Have, Platform: o.How.Platform})
	return res.Digest, err
}

// confine returns what a pull calls when it has all credentials, or nil.
func (o Options) confine(r ref.Ref) func() error {
	if !o.Confine {
		return nil
	}
	return o.sandbox(r).Enter
}

// bootID reports whether the holder of a lease is alive (package lease).
const bootID = "/proc/sys/kernel/random/boot_id"

// sandbox is what a fetch keeps while it reads what a registry sends, or an archive:
// the network, the image cache, and what name resolution, TLS and signatures need. It runs no
// program any more and cannot read the user's home directory. What a site or a user
// has put elsewhere is named by these settings.
func (o Options) sandbox(r ref.Ref) sandbox.Sandbox {
	trusted := o.Trusted
	for _, site := range o.Config.Registries {
		trusted = append(trusted, site.CA)
	}
	for _, rule := range o.Config.Policy.Signatures {
		trusted = append(trusted, rule.Keys...)
	}
	// Users keep parts of the cache elsewhere, by links.
	own := sandbox.Change(o.Cache, filepath.Join(o.Cache, "blobs"), filepath.Join(o.Cache, "blobs/sha256"), filepath.Join(o.Cache, "lease"))
	own = append(own, sandbox.Read(bootID)...)
	box := sandbox.Of(o.Config.Sandbox, own, sandbox.Internet(), sandbox.Read(trusted...))
	if r.IsLocal() {
		box = sandbox.Of(o.Config.Sandbox, own, sandbox.Read(r.Path))
	}
	box.Network, box.Sealed = !r.IsLocal(), true
	return box
}
