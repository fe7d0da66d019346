// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/policy"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// source says where images come from: for root as in a step, for others also from
// a store of their own, since those of the site are hardly theirs to read.
func (l *runner) source() image.Source {
	s := image.Source{
		Config:     l.conf,
		ConfigPath: l.confPath,
		User:       l.user(),
		Env:        os.Environ(),
		NoPull:     true, // fetch has done it
		Platform:   l.request.Platform,
	}
	if s.User.UID != 0 {
		s.Own = ownStore(l.cache())
	}
	return s
}

func (l *runner) cache() string {
	u := l.user()
	return l.conf.UserCache(u.Name, int(u.UID), u.Home)
}

// fetch puts the image into the cache, if that is needed and wanted, and pins the
// request to its digest.
func (l *runner) fetch(ctx context.Context, source image.Source) error {
	r := &l.request
	if r.Image.Kind == ref.Directory || r.Image.Kind == ref.Squashfs && (source.Own != "" || l.conf.UserSquashfs != config.SquashfsConvert) {
		if r.Image.Digest != "" {
			return fmt.Errorf("image name %q: the digest of what is used as it is cannot be checked", r.Image)
		}
		return nil
	}
	platform, err := layout.PlatformOr(r.Platform, layout.Host())
	if err != nil {
		return fmt.Errorf("--%s: %w", option.Platform, err)
	}
	have := store.NewTiers(l.conf.Store, identity.User{}).Has
	if source.Own != "" {
		have = func(digest string) bool { return image.Has(source, digest) }
	}
	if digest, ok := l.cached(have, platform); ok {
		r.Image.Digest = digest
		return nil
	}
	if r.Pull == "never" && !r.Image.IsLocal() {
		return layout.NotCached(r.Image.String())
	}
	progress := "auto"
	if r.Verbosity == request.Quiet {
		progress = "none"
	}
	r.Image.Digest, err = fetch(ctx, l.conf, r.Image, fetchOptions{
		cache: l.cache(), have: have, ifMissing: r.Pull != "always", progress: progress, platform: platform,
	})
	return err
}

// cached returns the digest of an image that nobody has to be asked for.
func (l *runner) cached(have func(digest string) bool, platform layout.Platform) (string, bool) {
	r := l.request
	signed := l.conf.Policy.RuleFor(r.Image.Origin()).Check != policy.Off // the pull says what it thinks of them
	if r.Image.IsLocal() || r.Pull == "always" || signed && r.Pull != "never" {
		return "", false
	}
	cache, err := layout.Open(l.cache())
	if err != nil {
		return "", false
	}
	digest, err := cache.Resolve(r.Image)
	if err != nil {
		return "", false
	}
	m, err := cache.Manifest(digest, platform)
	if err != nil || !have(m.Digest) && !cache.Complete(m) {
		return "", false
	}
	return digest, true
}

// open opens the image, which may have to be converted first.
func (l *runner) open(ctx context.Context, source image.Source) (image.Image, error) {
	img, err := image.Open(ctx, source, l.request.Image)
	if errors.Is(err, layout.ErrNotFound) {
		return image.Image{}, fmt.Errorf("%w: it was removed meanwhile", err)
	}
	return img, err
}
