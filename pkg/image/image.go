// SPDX-License-Identifier: Apache-2.0

// Package image gets the image that a job step wants, as a squashfs that the
// kernel may mount.
//
// [Get] is for the helper on a compute node, which is root. What is done for the
// user is done as the user, and what is done with untrusted bytes is done as the
// store owner:
//
//	as the user         read the manifest in the user's cache; whoever can
//	                    present it may run the image
//	as the store owner  open the image in the store, if the site's policy lets it
//	                    run: this is all, most times
//	as the user         brolga pull, which knows registries
//	as the store owner  brolga convert, which reads the layers and verifies
//	                    signatures
//	as the store owner  copy the image to the node, if the site wants that
//
// The policy is looked at for each use of an image, by the name that the user
// gave and by the digests of what is there. Where a signature is required, the
// store must have noted that it was verified with a key of today's policy; so an
// image that was stored when less was required is verified before its next use.
//
// Many nodes may want the same image at the same time. One pulls it and one
// converts it; the leases for that are taken by those programs. Whatever is
// killed, and whenever, the store has whole images only.
//
// On a node a few conversions run at the same time, and fewer for each user; the
// others wait for a slot (package slot), which a conversion has until it ends. The
// conversions of a user wait for each other first. So a user who wants many images keeps
// others waiting no more than a user who wants one. Their memory is limited for each
// process. Where Slurm limits memory with cgroups, it is also limited for both together,
// in a cgroup that belongs to no job: the image is for everybody, and a small job gets it,
// too.
//
// The package does not link the registry client.
package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/policy"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// Source says where images come from and for whom.
type Source struct {
	Config     config.Config
	ConfigPath string        // file that Config was read from, for the programs that are run; may be empty
	User       identity.User // who runs the step
	Env        []string      // of the job; only proxies and places of credentials are taken from it
	NoPull     bool          // an image that the cache lacks is an error
	Platform   string        // that the image is for; empty: this machine
	// Join, if set, makes a program that runs as the user a part of the user's step
	// before it does anything: a pull may run what the user says in a file.
	Join func(pid int) error
	// Limits, if set, returns what makes a cgroup for a conversion, or nil where the node
	// has no such cgroups. It may wait for as long as the user likes.
	Limits func() (MakeCgroup, error)
	// Tell, if set, gets a line about what took time.
	Tell func(line string)
	// Own is a directory of the user's, where images are converted to that the
	// site's stores do not let the user read. With it nothing needs privilege, and
	// nothing of the image is for the kernel: package image runs as the user, who
	// has pulled the image already. Empty: the site's stores are used.
	Own string
}

// MakeCgroup makes the cgroup with a name for the processes of a conversion, which count
// for no job, and limits their memory to so many bytes. It returns nil where the node has
// no such cgroups.
type MakeCgroup func(name string, memory int64) (Cgroup, error)

// Cgroup limits processes.
type Cgroup interface {
	Join(pid int) error
	// Close removes the cgroup. It reports whether the kernel killed one of the
	// processes for want of memory.
	Close() (killed bool)
}

// OwnStore returns a store of the user's own, in a directory that it makes.
func OwnStore(dir string, user identity.User) (*store.Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a store of your own: %w", err)
	}
	return store.New(dir, user), nil
}

// Get returns the image that r names. The caller closes it.
//
// A tag means what the user's cache says; the registry is asked when the cache
// does not know the image. Get must be called from a goroutine that is locked to
// its thread if that thread has a mount namespace of its own.
func Get(ctx context.Context, s Source, r ref.Ref) (store.Image, error) {
	g, err := newGetter(s, r)
	if err != nil {
		return store.Image{}, fmt.Errorf("get image %s: %w", r, err)
	}
	g.rule = s.Config.Policy.RuleFor(r.Origin())
	img, err := g.get(ctx)
	var told command.Told
	switch {
	case errors.As(err, &told):
		return store.Image{}, err // names the image already
	case err != nil:
		return store.Image{}, fmt.Errorf("get image %s: %w", r, err)
	}
	return img, nil
}

func newGetter(s Source, r ref.Ref) (*getter, error) {
	g := &getter{Source: s, ref: r}
	var err error
	if g.owner, err = store.LookupOwner(s.Config.StoreOwner); err != nil && s.Own == "" {
		return nil, err
	}
	g.stores = store.NewTiers(s.Config.Store, g.owner)
	if s.Own != "" {
		own, ownErr := OwnStore(s.Own, s.User)
		if ownErr != nil {
			return nil, ownErr
		}
		if err == nil {
			g.site = g.stores
		}
		g.owner, g.stores = s.User, store.Tiers{own}
		return g, nil
	}
	if dir := s.Config.StoreCopyTo; dir != "" {
		g.copies = store.New(dir, g.owner)
	}
	return g, nil
}

// Has says whether an image, by the digest of its manifest, needs no conversion.
func Has(s Source, digest string) bool {
	g, err := newGetter(s, ref.Ref{})
	if err != nil {
		return false
	}
	for _, st := range g.site {
		if img, err := st.OpenAs(s.User, digest); err == nil {
			img.Close()
			return true
		}
	}
	return g.stores.Has(digest)
}

type getter struct {
	Source
	site   store.Tiers // the site's, where stores is the user's own
	ref    ref.Ref
	owner  identity.User
	stores store.Tiers
	copies *store.Store // of this node; may be nil
	rule   policy.Rule  // for signatures
}

func (g *getter) get(ctx context.Context) (store.Image, error) {
	top, m, err := g.present()
	pulled := g.Own != "" // by the caller
	if !pulled && errors.Is(err, layout.ErrNotFound) {
		pulled = true
		err = g.checkStore() // before the user waits
		if err == nil {
			err = g.pull(ctx, g.ref)
		}
		if err == nil {
			top, m, err = g.present()
		}
	}
	if err == nil {
		whole, parts := m.Digests(top)
		err = g.Config.Policy.Permit(g.ref.Origin(), whole, parts)
	}
	if err != nil {
		return store.Image{}, err
	}
	img, err := g.open(ctx, m.Digest)
	if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, errUnverified) {
		return img, err
	}
	if err := g.checkStore(); err != nil {
		return store.Image{}, err
	}
	pinned := g.ref
	pinned.Digest = top
	if g.rule.Check == policy.Require && !pulled && !g.NoPull {
		pulled = true // it fetches the signatures, too
		if err := g.pull(ctx, pinned); err != nil {
			return store.Image{}, err
		}
	}
	if errors.Is(err, errUnverified) {
		return g.add(ctx, top, m, nil)
	}
	files, err := g.blobs(m)
	if errors.Is(err, layout.ErrNotFound) && !pulled {
		if err = g.pull(ctx, pinned); err == nil {
			files, err = g.blobs(m)
		}
	}
	defer closeAll(files)
	if errors.Is(err, layout.ErrNotFound) {
		// The pull did not fetch layers because the store had the image then.
		return g.open(ctx, m.Digest)
	}
	if err != nil {
		return store.Image{}, err
	}
	return g.add(ctx, top, m, files)
}

// add converts the image, or only has its signatures verified if the store has
// it, and opens it.
func (g *getter) add(ctx context.Context, top string, m layout.Manifest, files []*os.File) (store.Image, error) {
	evidence, err := g.evidence(top, m)
	if err != nil {
		return store.Image{}, err
	}
	if err := g.convert(ctx, m, files, evidence); err != nil {
		return store.Image{}, err
	}
	return g.open(ctx, m.Digest)
}

// open opens an image that is stored, best the node's copy, and that may be used
// under the name that was asked for.
func (g *getter) open(ctx context.Context, digest string) (store.Image, error) {
	if g.rule.Check == policy.Require {
		if err := g.checkSigned(digest); err != nil {
			return store.Image{}, err
		}
	}
	if g.copies != nil {
		if img, err := g.copies.Open(digest); err == nil {
			g.copies.Touch(img.Meta)
			g.stores.Touch(img.Meta) // or they would think that nobody uses it
			return img, nil
		}
	}
	for _, s := range g.site {
		// Mostly the user may not read it.
		if img, err := s.OpenAs(g.User, digest); err == nil {
			return img, nil
		}
	}
	img, err := g.stores.Open(digest)
	if err != nil {
		return store.Image{}, err
	}
	g.stores.Touch(img.Meta)
	if g.copies != nil {
		return g.copies.Copy(ctx, img, int64(g.Config.StoreCopySize))
	}
	return img, nil
}

// errUnverified means that the store has an image, but does not know that it is
// signed as the policy requires.
var errUnverified = errors.New("its signature was not verified")

// checkSigned returns nil if the store knows that the image is signed with a key
// of the policy. A copy on the node may know less.
func (g *getter) checkSigned(digest string) error {
	img, err := g.stores.Open(digest)
	if err != nil {
		return err
	}
	defer img.Close()
	for _, path := range g.rule.Keys {
		file, err := trust.Read(path)
		if err != nil {
			return fmt.Errorf("read key of the policy: %w", err)
		}
		if slices.Contains(img.Meta.Signed, policy.KeyID(file)) {
			return nil
		}
	}
	return errUnverified
}

// evidence reads, as the user, what the cache has to show for the image, if
// anything is asked for.
func (g *getter) evidence(top string, m layout.Manifest) (text []byte, err error) {
	if g.rule.Check != policy.Require {
		return nil, nil
	}
	platform, err := layout.PlatformOr(g.Platform, layout.Host())
	if err != nil {
		return nil, err
	}
	err = g.User.Do(func() error {
		l, err := layout.Open(g.cache())
		if err != nil {
			return err
		}
		e, err := l.Evidence(g.ref, top, m, platform)
		if err != nil {
			return err
		}
		text, err = json.Marshal(e)
		return err
	})
	return text, err
}

// present reads, as the user, the manifest of the image for this platform. It
// returns also the digest that the name points to.
func (g *getter) present() (top string, m layout.Manifest, err error) {
	platform, err := layout.PlatformOr(g.Platform, layout.Host())
	if err != nil {
		return "", m, err
	}
	err = g.User.Do(func() error {
		l, err := layout.Open(g.cache())
		if err != nil {
			return err
		}
		if top, err = l.Resolve(g.ref); err != nil {
			return err
		}
		if m, err = l.Manifest(top, platform); err == nil {
			l.Touch(top)
		}
		return err
	})
	if errors.Is(err, budget.ErrLarge) {
		err = fault.WithHint(err, "no registry has such a description of an image: remove your image cache, "+g.cache()+", and pull again")
	}
	return top, m, err
}

func (g *getter) cache() string {
	return g.Config.UserCache(g.User.Name, int(g.User.UID), g.User.Home)
}

// blobs opens, as the user, the manifest, the configuration and the layers.
func (g *getter) blobs(m layout.Manifest) (files []*os.File, err error) {
	err = g.User.Do(func() error {
		l, err := layout.Open(g.cache())
		if err != nil {
			return err
		}
		if !l.Complete(m) {
			return layout.ErrNotFound
		}
		for _, digest := range append([]string{m.Digest}, digests(m)...) {
			f, err := l.Blob(digest)
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		return nil
	})
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

func digests(m layout.Manifest) []string {
	var all []string
	for _, d := range m.Blobs() {
		all = append(all, d.Digest)
	}
	return all
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// checkStore returns an error if nothing can be added to the store.
func (g *getter) checkStore() error {
	_, err := g.stores.ForNew()
	if errors.Is(err, fs.ErrNotExist) {
		last := g.Config.Store[len(g.Config.Store)-1]
		return fault.WithHint(fmt.Errorf("the store %s does not exist", strings.Join(g.Config.Store, ", ")),
			fmt.Sprintf("an administrator creates it, owned by %s: install -d -m 0711 -o %[1]s %s", g.Config.StoreOwner, last))
	}
	return err
}
