// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/image/fetch"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/resolve"
	"github.com/brolga-hpc/brolga/pkg/image/store"
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
	r := l.request
	have := store.NewTiers(l.conf.Store, identity.User{}).Has
	if source.Own != "" {
		have = func(digest string) bool { return image.Has(source, digest) }
	}
	answer, err := resolve.Decide(resolve.Question{
		Image: r.Image, Pull: r.Pull, Platform: r.Platform, Config: l.conf, Cache: l.cache(),
		ServesSquashfs: source.Own != "",
		Needed:         func(digest string) bool { return !have(digest) },
	})
	if err == nil && !answer.InPlace && answer.Digest == "" {
		o := fetchOptions(l.conf, l.cache())
		o.Have, o.Progress, o.How = have, progressOf(r), answer.Fetch
		answer.Digest, err = fetch.Image(ctx, r.Image, o)
	}
	l.request.Image.Digest = answer.Digest
	return err
}

func progressOf(r request.Request) string {
	if r.Verbosity == request.Quiet {
		return "none"
	}
	return "auto"
}

// open opens the image, which may have to be converted first.
func (l *runner) open(ctx context.Context, source image.Source) (image.Image, error) {
	img, err := image.Open(ctx, source, l.request.Image)
	if errors.Is(err, layout.ErrNotFound) {
		return image.Image{}, fmt.Errorf("%w: it was removed meanwhile", err)
	}
	return img, err
}
