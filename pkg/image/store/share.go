// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/image/lease"
)

// Share is what one user may have in a store: the images that this user was the first
// to want, whoever uses them now.
type Share struct {
	User string // as [Meta.User]
	Size int64  // of all images together; zero is no limit
	// Keep is for how long an image that was used stays, on file systems where a node
	// loses an image that another one removes.
	Keep time.Duration
}

// ErrShare means that a user has too much in the store.
var ErrShare = errors.New("your share of the store is full")

// exempt is the user whose images count for nobody: an administrator.
const exempt = "root"

// CheckShare returns an error that wraps [ErrShare] if no image can be added to a share,
// however small it is and whatever is removed.
func (s *Store) CheckShare(share Share) error {
	if share.IsEndless() {
		return nil
	}
	c, err := s.contents(share)
	if err != nil {
		return err
	}
	if c.inUse >= share.Size {
		return fmt.Errorf("%w: images in use take %s of %s", ErrShare, budget.RoundedSize(c.inUse), budget.RoundedSize(share.Size))
	}
	return nil
}

// MakeRoom removes images of a share, the one that was not used for the longest time
// first, until one of that size can be added. If what is in use is too much already,
// nothing is removed, and the error wraps [ErrShare].
func (s *Store) MakeRoom(ctx context.Context, share Share, size int64) error {
	if share.IsEndless() {
		return nil
	}
	c, err := s.contents(share)
	if err == nil {
		err = share.check(c.inUse, size)
	}
	if err != nil {
		return err
	}
	for _, m := range c.unused {
		if c.total+size <= share.Size {
			return nil
		}
		img := stored{hex: m.Digest[len("sha256:"):], size: m.Size, used: m.Used}
		freed, err := s.collect(ctx, img, image, expire.Limits{}, func(expire.Removed) {})
		if err != nil {
			return err
		}
		c.total -= freed
	}
	return share.check(c.total, size)
}

// IsEndless reports whether the share has no limit.
func (share Share) IsEndless() bool { return share.Size == 0 || share.User == exempt }

func (share Share) check(used, size int64) error {
	if used+size <= share.Size {
		return nil
	}
	return fmt.Errorf("%w: images in use take %s of %s, and this one takes %s", ErrShare, budget.RoundedSize(used), budget.RoundedSize(share.Size), budget.RoundedSize(size))
}

// contents is what a share has.
type contents struct {
	total, inUse int64  // bytes
	unused       []Meta // the one that was not used for the longest time first
}

// contents looks at a share. An image counts as in use if a step of this node uses it,
// or perhaps one of another node, from which it would vanish.
func (s *Store) contents(share Share) (c contents, err error) {
	all, err := s.List()
	if err != nil && len(all) == 0 {
		return c, err
	}
	busy, forgets := attached(), s.forgets()
	for _, m := range all {
		if m.User != share.User {
			continue
		}
		c.total += m.Size
		if busy[m.Digest[len("sha256:"):]] || forgets && time.Since(m.Used) < share.Keep {
			c.inUse += m.Size
		} else {
			c.unused = append(c.unused, m)
		}
	}
	slices.SortFunc(c.unused, func(a, b Meta) int { return a.Used.Compare(b.Used) })
	return c, nil
}

// forgetful are file systems on which an open file vanishes when another node removes
// it (statfs(2)): NFS, SMB, 9P, and FUSE, of which nothing is known.
var forgetful = []int64{unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.V9FS_MAGIC, unix.FUSE_SUPER_MAGIC}

func (s *Store) forgets() bool {
	var st unix.Statfs_t
	return unix.Statfs(s.dir, &st) != nil || slices.Contains(forgetful, int64(st.Type))
}

// IsInMemory reports whether what is in the store takes memory.
func (s *Store) IsInMemory() bool {
	var st unix.Statfs_t
	return unix.Statfs(s.dir, &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}

// Capacity returns the size of the file system that the store is on.
func (s *Store) Capacity() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, fmt.Errorf("find out the size of the store: %w", err)
	}
	return int64(st.Blocks) * st.Bsize, nil
}

// Tidy removes what processes that died have left. It is for root, after a converter
// was killed.
func (s *Store) Tidy() error {
	return s.owner.Do(func() error { return s.removeLeft(expire.Limits{}, func(expire.Removed) {}) })
}

// IsConverting reports whether a process of this node makes the image now.
func (s *Store) IsConverting(digest string) (here bool) {
	hex, err := hexOf(digest)
	if err != nil {
		return false
	}
	_ = s.owner.Do(func() error {
		here = lease.HeldHere(s.leasePath(hex))
		return nil
	})
	return here
}
