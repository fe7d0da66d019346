// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/identity"
)

// Tiers are stores in the order in which an image is looked for, such as one that
// all nodes share and one on the node's disk.
type Tiers []*Store

// NewTiers returns the stores in dirs, which belong to the same owner.
func NewTiers(dirs []string, owner identity.User) Tiers {
	var t Tiers
	for _, dir := range dirs {
		t = append(t, New(dir, owner))
	}
	return t
}

// Open returns the image from the first store that has it, or an error that
// wraps [ErrNotFound]. A store that cannot be read is an error only where no
// other has the image.
func (t Tiers) Open(digest string) (Image, error) {
	var first error
	for _, s := range t {
		img, err := s.Open(digest)
		if err == nil {
			return img, nil
		}
		if first == nil || errors.Is(first, ErrNotFound) {
			first = err
		}
	}
	return Image{}, first
}

// Has says whether a store has the image. Everyone may ask.
func (t Tiers) Has(digest string) bool {
	for _, s := range t {
		if s.Has(digest) {
			return true
		}
	}
	return false
}

// Amend changes what is known of an image, in the store that Open finds it in.
func (t Tiers) Amend(ctx context.Context, digest string, change func(*Meta)) error {
	for _, s := range t {
		if s.Has(digest) {
			return s.Amend(ctx, digest, change)
		}
	}
	return fmt.Errorf("amend image %s: %w", digest, ErrNotFound)
}

// Existing returns those that exist on this node, of which there must be one. All
// must be in order.
func (t Tiers) Existing() (Tiers, error) {
	var there Tiers
	var first error
	for _, s := range t {
		err := s.Check()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			there = append(there, s)
		} else if first == nil {
			first = err
		}
	}
	if there == nil {
		return nil, first
	}
	return there, nil
}

// Touch notes in all stores that the image is used.
func (t Tiers) Touch(meta Meta) {
	for _, s := range t {
		s.Touch(meta)
	}
}

// ForNew returns the store that new images are written to: the first that
// exists and can be written. If none exists, the error wraps fs.ErrNotExist.
func (t Tiers) ForNew() (*Store, error) {
	var first error
	for _, s := range t {
		err := s.Check()
		if err == nil {
			err = s.owner.Do(s.checkWritable)
		}
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) {
			return nil, err // a mistake of the site's, to be mended
		}
		if first == nil || errors.Is(first, fs.ErrNotExist) {
			first = err
		}
	}
	return nil, first
}

func (s *Store) checkWritable() error {
	if err := unix.Faccessat(unix.AT_FDCWD, s.dir, unix.W_OK, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "write to the store", Path: s.dir, Err: err}
	}
	return nil
}
