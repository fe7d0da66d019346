// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Draft is an image that is being made.
type Draft struct {
	store *Store
	dir   string // path and beginning of the name of the files
	hex   string
}

// Draft begins the image with the given digest. The caller holds its lease,
// writes the squashfs to [Draft.Path] and calls Publish or Discard.
func (s *Store) Draft(digest string) (*Draft, error) {
	hex, err := hexOf(digest)
	if err != nil {
		return nil, err
	}
	unique := fmt.Sprintf(".tmp-%s-%s", hex, rand.Text()) // also among nodes
	return &Draft{store: s, dir: s.path(unique), hex: hex}, nil
}

// Path is where the squashfs is to be written. There is no file yet.
func (d *Draft) Path() string { return d.dir + ".squashfs" }

// Discard removes the draft, if it was not published.
func (d *Draft) Discard() {
	os.Remove(d.dir + ".squashfs")
	os.Remove(d.dir + ".json")
}

// Publish makes the draft an image of the store. Both files are on the disk
// before either has its name, and the squashfs, which others look for, gets its
// name last. An image that is there by now stays: steps may be using it.
func (d *Draft) Publish(meta Meta) error {
	if d.store.Has("sha256:" + d.hex) {
		return nil
	}
	if err := d.publish(meta); err != nil {
		return fmt.Errorf("publish image: %w", err)
	}
	return nil
}

func (d *Draft) publish(meta Meta) error {
	var err error
	want := meta.Squashfs // of a copy
	if meta.Size, meta.Squashfs, err = seal(d.Path()); err != nil {
		return err
	}
	if want != "" && want != meta.Squashfs {
		return damaged(meta.Digest)
	}
	meta.Format, meta.Digest = format, "sha256:"+d.hex
	if err := d.writeMeta(meta); err != nil {
		return err
	}
	for _, ext := range []string{".json", ".squashfs"} {
		if err := os.Rename(d.dir+ext, d.store.path(d.hex+ext)); err != nil {
			return err
		}
	}
	return syncDir(d.store.path(""))
}

func (d *Draft) writeMeta(meta Meta) error {
	text, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.dir+".json", text, 0o600); err != nil {
		return err
	}
	_, _, err = seal(d.dir + ".json")
	return err
}

// Amend changes, as the store owner, what the store knows of an image that it
// has. A reader sees all of the change or nothing.
func (s *Store) Amend(ctx context.Context, digest string, change func(*Meta)) error {
	held, err := s.Lease(ctx, digest, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(s.amend(digest, change), held.Close()); err != nil {
		return fmt.Errorf("amend image %s: %w", digest, err)
	}
	return nil
}

func (s *Store) amend(digest string, change func(*Meta)) error {
	d, err := s.Draft(digest)
	if err != nil {
		return err
	}
	defer d.Discard()
	meta, err := s.readMeta(digest, d.hex)
	if err != nil {
		return err
	}
	change(&meta)
	if err := d.writeMeta(meta); err != nil {
		return err
	}
	if err := os.Rename(d.dir+".json", s.path(d.hex+".json")); err != nil {
		return err
	}
	return syncDir(s.path(""))
}

// seal makes a file durable and private and returns its size and digest.
func seal(path string) (size int64, digest string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, "", err
	}
	synced := make(chan error, 1)
	go func() { synced <- errors.Join(f.Chmod(0o600), f.Sync()) }() // the disk works meanwhile
	sum := sha256.New()
	size, err = io.Copy(sum, f)
	if err := errors.Join(err, <-synced, f.Close()); err != nil {
		return 0, "", err
	}
	return size, fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
