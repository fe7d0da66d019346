// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/policy"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// Image is an open image. The caller closes File.
type Image struct {
	File *os.File
	Way  userfile.Way // how it becomes a root file system
	Meta store.Meta   // of an image of the store
}

// Close closes the image's file.
func (i Image) Close() error { return i.File.Close() }

// Open returns the image that r names, wherever it is. Squashfs files and
// directories of the user's are opened as the user; the others come from the
// store, and what is said of [Get] is true of Open.
func Open(ctx context.Context, s Source, r ref.Ref) (Image, error) {
	if r.Kind == ref.Directory || r.Kind == ref.Squashfs {
		img, err := openInPlace(s, r)
		if err != nil {
			return Image{}, fmt.Errorf("get image %s: %w", r, err)
		}
		if img.Way != userfile.Convert {
			return img, nil
		}
		img.Close()
	}
	if r.IsLocal() && r.Digest == "" && s.Own == "" {
		// Nobody has looked yet whether the file is the one that the cache knows.
		g := getter{Source: s, ref: r}
		if err := g.pull(ctx, r); err != nil {
			return Image{}, err
		}
	}
	img, err := Get(ctx, s, r)
	way := userfile.Kernel
	if s.Own != "" {
		way = userfile.Fuse
	}
	return Image{img.File, way, img.Meta}, err
}

// openInPlace opens what is used where it is, or a squashfs that must be
// converted.
func openInPlace(s Source, r ref.Ref) (img Image, err error) {
	err = s.User.Do(func() (err error) {
		if r.Kind == ref.Directory {
			img.File, err = userfile.Directory(r.Path)
		} else {
			img.File, err = userfile.Squashfs(r.Path)
		}
		return err
	})
	if err != nil {
		return Image{}, err
	}
	img.Way = userfile.Bind
	if r.Kind == ref.Squashfs {
		// As root: the user may not see all of the way to the file.
		img.Way, err = userfile.WayOf(userfile.PolicyOf(s.Config), img.File)
		if s.Own != "" {
			img.Way = userfile.Fuse // a user's squashfuse; the kernel reads nothing of it
		}
	}
	if err == nil && img.Way != userfile.Convert {
		err = permitInPlace(s.Config.Policy, r)
	}
	if err != nil {
		img.Close()
		return Image{}, err
	}
	return img, nil
}

// permitInPlace asks the site's policy for what has no digest and no signature.
func permitInPlace(p policy.Policy, r ref.Ref) error {
	if err := p.Permit(r.Origin(), []string{"none"}, nil); err != nil {
		return err
	}
	if p.RuleFor(r.Origin()).Check == policy.Require {
		return fault.WithHint(errors.New("the site wants a signature of it, and what is used in place has none"),
			"use an image in a registry that is signed")
	}
	return nil
}
