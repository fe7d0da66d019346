// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/lease"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// errNoRoom means that a copy would exceed the limit.
var errNoRoom = errors.New("no room for a copy")

// ErrDamaged means that an image is not what was published.
var ErrDamaged = errors.New("the image in the store is damaged")

func damaged(digest string) error {
	return fault.WithHint(fmt.Errorf("%w: %s", ErrDamaged, digest), `an administrator runs "brolga verify --store --repair"`)
}

// Copy copies an image of another store to s, a directory of this node, and
// returns the copy. One process of the node copies, the others wait. Copies that
// no step uses make room, so that s has no more than limit bytes. Where that is
// not enough, or s cannot be used, the image itself is returned: a copy only makes
// things faster. img is closed where it is not returned.
func (s *Store) Copy(ctx context.Context, img Image, limit int64) (Image, error) {
	err := s.make()
	if err == nil {
		err = s.owner.Do(func() error { return s.copy(ctx, img, limit) })
	}
	switch {
	case errors.Is(err, ErrDamaged):
		img.Close()
		return Image{}, err
	case ctx.Err() != nil:
		img.Close()
		return Image{}, context.Cause(ctx)
	case err != nil:
		return img, nil
	}
	copied, err := s.Open(img.Meta.Digest)
	if err != nil {
		return img, nil
	}
	img.Close()
	return copied, nil
}

// CheckPlace is Check for a directory of a node, which anybody might have made first:
// no other user may be able to put a link or another directory in its place.
func (s *Store) CheckPlace() error {
	if err := s.checkWay(s.dir); err != nil {
		return err
	}
	return s.Check()
}

func (s *Store) checkWay(path string) error {
	return fault.WithHint(trust.CheckOf(path, s.owner.UID, s.owner.Name),
		"remove it, and make it when the node starts, or name a directory below one that is root's alone, such as /run")
}

// make makes the directory, as root, for the store owner, where only root can have made
// what is above it.
func (s *Store) make() error {
	if err := s.checkWay(filepath.Dir(s.dir)); err != nil {
		return err
	}
	err := os.Mkdir(s.dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return s.CheckPlace()
	}
	if err != nil {
		return err
	}
	dir, err := os.OpenFile(s.dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return errors.Join(dir.Chmod(0o711), dir.Chown(int(s.owner.UID), int(s.owner.GID)))
}

func (s *Store) copy(ctx context.Context, img Image, limit int64) error {
	if img.Meta.Size > limit || img.Meta.Squashfs == "" {
		return errNoRoom
	}
	if err := s.Init(); err != nil {
		return err
	}
	digest := img.Meta.Digest
	held, err := s.Lease(ctx, digest, func() bool { return s.Has(digest) })
	if errors.Is(err, lease.ErrDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	if err := s.makeRoom(ctx, img.Meta.Size, limit); err != nil {
		return err
	}
	draft, err := s.Draft(digest)
	if err != nil {
		return err
	}
	defer draft.Discard()
	if err := copyFile(held.Context(), draft.Path(), img.File); err != nil {
		return err
	}
	return draft.Publish(img.Meta) // which compares the digest
}

// makeRoom removes copies until there is room for so many bytes more.
func (s *Store) makeRoom(ctx context.Context, size, limit int64) error {
	if s.size()+size <= limit {
		return nil
	}
	if err := s.Collect(ctx, expire.Limits{MaxSize: limit - size}, func(expire.Removed) {}); err != nil {
		return err
	}
	if s.size()+size > limit {
		return errNoRoom
	}
	return nil
}

func (s *Store) size() (total int64) {
	images, _, _ := s.scan()
	for _, img := range images {
		total += img.size
	}
	return total
}

// copyFile copies in pieces, so that it can be interrupted.
func copyFile(ctx context.Context, path string, from *os.File) error {
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	in := io.NewSectionReader(from, 0, 1<<62)
	for err == nil {
		if _, err = io.CopyN(to, in, 16<<20); ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, to.Close())
}
