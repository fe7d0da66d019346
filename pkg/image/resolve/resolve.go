// SPDX-License-Identifier: Apache-2.0

// Package resolve decides what the name of an image means where a user asks for it: whether
// it is used in place, whether the user's cache answers, or whether a registry or a file has
// to be read first. The library in srun and "brolga run" ask it, and so agree.
//
// It asks no registry and changes nothing. Identity: the user.
package resolve

import (
	"errors"
	"fmt"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/policy"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// Question is about one image.
type Question struct {
	// Image has an absolute path, if it is in a file.
	Image ref.Ref
	// Pull is one of [option.Pulls], Platform as the user wrote it.
	Pull, Platform string
	// Config is the site's configuration, Cache the user's image cache, a directory.
	Config config.Config
	Cache  string
	// ServesSquashfs says that squashfs files are served as they are, whatever the site
	// says of steps.
	ServesSquashfs bool
	// Needed, if set, reports whether the layers of the image with this manifest are
	// needed here. The cache answers for a name only with all of them then.
	Needed func(manifestDigest string) bool
}

// Answer says what the name means.
type Answer struct {
	// InPlace says that the image is used where it is. It has no digest.
	InPlace bool
	// Digest is what the cache knows the name by, or empty: the image must be fetched.
	Digest string
	// Fetch says how.
	Fetch Fetch
}

// Fetch says how an image is to be fetched into the cache.
type Fetch struct {
	Platform layout.Platform
	// IfMissing takes a name that the cache knows to mean what it meant.
	IfMissing bool
	// Offline asks no registry: signatures are verified as far as the cache has them.
	Offline bool
}

// errUnknown means that the user's cache cannot answer.
var errUnknown = errors.New("image is not in the cache")

// Decide answers. The error is for the user.
func Decide(q Question) (Answer, error) {
	if inPlace, err := q.isInPlace(); err != nil || inPlace {
		return Answer{InPlace: inPlace}, err
	}
	platform, err := layout.PlatformOr(q.Platform, layout.Host())
	if err != nil {
		return Answer{}, fmt.Errorf("--%s: %w", option.Platform, err)
	}
	fetch := Fetch{Platform: platform, IfMissing: q.Pull != "always"}
	if q.Pull == "always" {
		return Answer{Fetch: fetch}, nil
	}
	digest, err := q.cached(platform)
	switch {
	case errors.Is(err, errUnknown):
		// To read a file is no pull.
		if q.Pull == "never" && !q.Image.IsLocal() {
			return Answer{}, layout.NotCached(q.Image.String())
		}
		return Answer{Fetch: fetch}, nil
	case err != nil:
		return Answer{}, err
	case q.Config.Policy.RuleFor(q.Image.Origin()).Check == policy.Off:
		return Answer{Digest: digest}, nil
	}
	// The pull verifies signatures, and says what it thinks of them.
	fetch.Offline = q.Pull == "never"
	return Answer{Fetch: fetch}, nil
}

// isInPlace reports whether an image is used where it is, and has no digest. What is wrong
// with such a one is said now.
func (q Question) isInPlace() (bool, error) {
	var inPlace bool
	switch q.Image.Kind {
	case ref.Directory:
		f, err := userfile.Directory(q.Image.Path)
		if err != nil {
			return false, err
		}
		f.Close()
		inPlace = true
	case ref.Squashfs:
		f, err := userfile.Squashfs(q.Image.Path)
		if err != nil {
			return false, err
		}
		defer f.Close()
		way, err := userfile.WayOf(userfile.PolicyOf(q.Config), f)
		if err != nil && !q.ServesSquashfs {
			return false, err
		}
		inPlace = q.ServesSquashfs || way != userfile.Convert
	}
	if inPlace && q.Image.Digest != "" {
		return false, fmt.Errorf("image name %q: the digest of what is used as it is cannot be checked", q.Image)
	}
	return inPlace, nil
}

// cached returns the digest by which the cache knows the name. It knows an image only once
// that was pulled as a whole.
func (q Question) cached(platform layout.Platform) (string, error) {
	cache, err := layout.Open(q.Cache)
	if err != nil {
		return "", errUnknown
	}
	digest, err := lookUp(cache, q.Image)
	if err != nil {
		return "", err
	}
	m, err := cache.Manifest(digest, platform)
	if err != nil || q.Needed != nil && q.Needed(m.Digest) && !cache.Complete(m) {
		return "", errUnknown
	}
	// It may have been pulled for another platform, and an image on its own is in no
	// index that says so.
	if doc, err := cache.ReadBlob(m.Config.Digest, layout.MaxManifest); err == nil {
		if err := platform.Check(doc); err != nil {
			return "", fmt.Errorf("image %s: %w", q.Image, err)
		}
	}
	whole, parts := m.Digests(digest)
	return digest, q.Config.Policy.Permit(q.Image.Origin(), whole, parts)
}

// lookUp looks up what a name means. What is in a file is known from the cache
// as long as that is the same file.
func lookUp(cache *layout.Layout, image ref.Ref) (string, error) {
	if !image.IsLocal() || image.Digest != "" {
		digest, err := cache.Resolve(image)
		if err != nil {
			return "", errUnknown
		}
		return digest, nil
	}
	if image.Kind == ref.OCI {
		return "", errUnknown // its index has to be read
	}
	f, err := userfile.File(image.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	stamp, err := userfile.Stamp(f)
	if err != nil {
		return "", err
	}
	index, err := cache.Index()
	if err != nil {
		return "", errUnknown
	}
	if d := index.FindSource(image.Name(), stamp); d != nil {
		return d.Digest, nil
	}
	return "", errUnknown
}

// Pulled is what "brolga pull --json" says.
type Pulled struct {
	// Image is the name with its digest, Digest that alone.
	Image, Digest string
}
