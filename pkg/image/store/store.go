// SPDX-License-Identifier: Apache-2.0

// Package store keeps converted images, one squashfs for each image and
// platform, by the digest of the image's manifest:
//
//	format                     version of all this
//	sha256/HEX.squashfs        the root file system
//	sha256/HEX.json            [Meta]; its time is when the image was last used
//	sha256/.tmp-HEX-*          of a conversion that is going on, or was killed
//	lease/HEX/                 who converts or removes it now (package lease)
//	collected                  its time is when [Store.Collect] last ran by itself
//
// The store belongs to one unprivileged user, the store owner, who alone writes
// to it, so the kernel may mount what is in it. Its directories are 0711: others
// may ask whether the store has an image, but cannot list or read. On a file
// server that keeps root out (root squash) even root can do no more, so a Store
// opens its files as its owner.
//
// An image appears by rename, the squashfs last, and never changes. [Store.Open]
// takes no lease. An image may be removed while it is in use: who has it open or
// mounted keeps it, except on NFS, where a file is gone when another node removes
// it.
package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/lease"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
)

// ErrNotFound means that the store does not have the image asked for.
var ErrNotFound = errors.New("image is not in the store")

// format is the version of the store's layout. A store, or an image, of a later
// one is refused. What an earlier program would misread needs a new number.
const format = 1

// maxMeta limits the size of the JSON beside an image: the configuration, and two files
// of 1 MiB in base64.
const maxMeta = maxConfig + 3<<20

// Meta is what the store knows of an image.
type Meta struct {
	Format   int       `json:"format"`
	Digest   string    `json:"digest"`         // of the platform's manifest
	Name     string    `json:"name"`           // it was first pulled as
	User     string    `json:"user,omitempty"` // who first pulled it
	Platform string    `json:"platform"`
	Created  time.Time `json:"created"`  // in the store
	Size     int64     `json:"size"`     // of the squashfs
	Squashfs string    `json:"squashfs"` // its digest
	Used     time.Time `json:"-"`        // last, to an hour or so
	Config   Config    `json:"config"`
	// Signed lists the keys whose signature of the image was verified, by the
	// digest of their files.
	Signed []string `json:"signed,omitempty"`
	// Passwd and Group are the image's /etc/passwd and /etc/group, kept here
	// because each container start needs them and reading them from a squashfs
	// that was mounted a moment ago is slow. Nil if the image has none.
	Passwd []byte `json:"passwd,omitempty"`
	Group  []byte `json:"group,omitempty"`
}

// Image is an image of the store. The caller closes File.
type Image struct {
	File *os.File // the squashfs, open for reading
	Meta Meta
}

// Close closes the image's file.
func (i Image) Close() error { return i.File.Close() }

// Store is a directory of converted images. It holds no resources.
type Store struct {
	dir   string
	owner identity.User
}

// LookupOwner returns the owner of stores, who is in no other group.
func LookupOwner(name string) (identity.User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return identity.User{}, fault.WithHint(fmt.Errorf("look up store_owner: %w", err),
			fmt.Sprintf("an administrator creates the user: useradd --system --no-create-home --shell %s %s", "/usr/sbin/nologin", name))
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return identity.User{}, fmt.Errorf("look up store_owner %s: %w", name, err)
	}
	return identity.User{UID: uint32(uid), GID: uint32(gid), Name: name}, nil
}

// New returns the store in dir that belongs to the user owner. It does not
// touch the directory.
func New(dir string, owner identity.User) *Store { return &Store{dir, owner} }

// Dir returns the directory of the store.
func (s *Store) Dir() string { return s.dir }

// Open returns the image with the given digest, or an error that wraps
// [ErrNotFound].
func (s *Store) Open(digest string) (img Image, err error) {
	err = s.owner.Do(func() error {
		img, err = s.open(digest)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return Image{}, fmt.Errorf("open image %s: %w", digest, err)
	}
	return img, nil
}

// OpenAs is Open for a user who may not become the store owner, but may be let
// read. The caller must not give the image to the kernel of others.
func (s *Store) OpenAs(user identity.User, digest string) (img Image, err error) {
	err = user.Do(func() error {
		img, err = s.open(digest)
		return err
	})
	return img, err
}

func (s *Store) open(digest string) (Image, error) {
	hex, err := hexOf(digest)
	if err != nil {
		return Image{}, err
	}
	f, err := s.openFile(s.path(hex + ".squashfs"))
	if err != nil {
		return Image{}, err
	}
	meta, err := s.readMeta(digest, hex)
	if err != nil {
		f.Close()
		return Image{}, err
	}
	return Image{File: f, Meta: meta}, nil
}

// touchEvery is how exact the time of the last use is.
const touchEvery = time.Hour

// Touch notes that the image is used. It does so as seldom as a start of a
// container can afford, and where the store cannot be written it is let be.
func (s *Store) Touch(meta Meta) {
	if age := time.Since(meta.Used); -touchEvery < age && age < touchEvery {
		return
	}
	_ = s.owner.Do(func() error {
		now := unix.Timespec{Nsec: unix.UTIME_NOW}
		path := s.path(strings.TrimPrefix(meta.Digest, "sha256:") + ".json")
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (s *Store) readMeta(digest, hex string) (Meta, error) {
	f, err := s.openFile(s.path(hex + ".json"))
	if err != nil {
		return Meta{}, err
	}
	defer f.Close()
	text, err := budget.Open(f, maxMeta)
	if err != nil {
		return Meta{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	var meta Meta
	if err := json.Unmarshal(text, &meta); err != nil {
		return Meta{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if meta.Digest != digest {
		return Meta{}, fmt.Errorf("read %s: it is about %q", f.Name(), meta.Digest)
	}
	if meta.Format > format {
		return Meta{}, newer(f.Name(), meta.Format)
	}
	if err := meta.Config.checkEntries(); err != nil {
		return Meta{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	st, err := f.Stat()
	if err != nil {
		return Meta{}, err
	}
	meta.Used = st.ModTime()
	return meta, nil
}

// openFile opens a regular file that only the store owner or root can have
// written.
func (s *Store) openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil {
		err = s.check(path, st)
	}
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *Store) check(path string, st fs.FileInfo) error {
	uid := st.Sys().(*syscall.Stat_t).Uid
	if uid != s.owner.UID && uid != 0 {
		return fmt.Errorf("%s belongs to user %d, not to the store owner, %d", path, uid, s.owner.UID)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s can be written by others than the store owner (mode %04o)", path, st.Mode().Perm())
	}
	return nil
}

// Check returns an error unless the store's directory exists, only its owner or
// root can change what is in it, and this program understands it. A missing
// directory wraps fs.ErrNotExist.
func (s *Store) Check() error {
	if err := s.owner.Do(s.checkDir); err != nil {
		return fmt.Errorf("check the store: %w", err)
	}
	return nil
}

func (s *Store) checkDir() error {
	st, err := os.Stat(s.dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a directory", s.dir)
	}
	if err := s.check(s.dir, st); err != nil {
		return err
	}
	path := filepath.Join(s.dir, "format")
	f, err := s.openFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return err
	}
	version, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("read %s: %q is not a number", path, text)
	}
	if version > format {
		return newer(path, version)
	}
	return nil
}

func newer(path string, version int) error {
	return fault.WithHint(fmt.Errorf("%s has store format %d, and this Brolga knows up to %d", path, version, format),
		"an administrator updates Brolga on this node, or gives the setting store a directory of its own")
}

// Has says whether the store has the image. Everyone may ask.
func (s *Store) Has(digest string) bool {
	_, _, err := s.Stat(digest)
	return err == nil
}

// Init makes what is missing in the store's directory, as the store owner.
func (s *Store) Init() error {
	for _, name := range []string{"sha256", "lease"} {
		path := filepath.Join(s.dir, name)
		err := os.Mkdir(path, 0o700)
		if err == nil {
			err = os.Chmod(path, 0o711) // whatever the umask
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create the store: %w", err)
		}
	}
	path := filepath.Join(s.dir, "format")
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	draft := filepath.Join(s.dir, ".tmp-format-"+rand.Text())
	err := os.WriteFile(draft, []byte(strconv.Itoa(format)+"\n"), 0o600)
	if err == nil {
		err = os.Rename(draft, path)
	}
	if err != nil {
		os.Remove(draft)
		return fmt.Errorf("create the store: %w", err)
	}
	return nil
}

// Lease waits until no one else produces or removes the image, on any node, and
// keeps others from it until it is closed. With done, it waits no longer than
// until that is true, and returns [lease.ErrDone]. It also removes what producers
// that died have left, of this image and of others.
func (s *Store) Lease(ctx context.Context, digest string, done func() bool) (*lease.Lease, error) {
	hex, err := hexOf(digest)
	if err != nil {
		return nil, err
	}
	held, err := lease.Acquire(ctx, s.leasePath(hex), lease.Options{Done: done})
	if err != nil {
		return nil, err
	}
	drafts, _ := filepath.Glob(s.path(".tmp-*"))
	for _, path := range drafts {
		of, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), ".tmp-"), "-")
		// A draft that was there before its lease was free has no producer.
		if of == hex || !lease.Held(s.leasePath(of)) {
			os.Remove(path)
		}
	}
	return held, nil
}

func (s *Store) leasePath(hex string) string { return filepath.Join(s.dir, "lease", hex) }

// Stat returns the size and the last use of an image that the store has. Everyone
// may ask.
func (s *Store) Stat(digest string) (size int64, used time.Time, err error) {
	hex, err := hexOf(digest)
	if err != nil {
		return 0, time.Time{}, err
	}
	image, err := os.Lstat(s.path(hex + ".squashfs"))
	if err != nil {
		return 0, time.Time{}, err
	}
	data, err := os.Lstat(s.path(hex + ".json"))
	if err != nil {
		return 0, time.Time{}, err
	}
	return image.Size(), data.ModTime(), nil
}

// Verify reads all of an image. If it is not what was published, the error wraps
// [ErrDamaged].
func (s *Store) Verify(ctx context.Context, meta Meta) error {
	img, err := s.Open(meta.Digest)
	if err != nil {
		return err
	}
	defer img.Close()
	sum := sha256.New()
	for err == nil && ctx.Err() == nil {
		_, err = io.CopyN(sum, img.File, 16<<20)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("read image %s: %w", meta.Digest, err)
	case fmt.Sprintf("sha256:%x", sum.Sum(nil)) != img.Meta.Squashfs:
		return fmt.Errorf("%w: %s", ErrDamaged, meta.Digest)
	}
	return nil
}

// List returns all images, the oldest first. It is for the store owner.
func (s *Store) List() ([]Meta, error) {
	entries, err := os.ReadDir(s.path(""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("list the store: %w", err)
	}
	var all []Meta
	var errs []error
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), ".squashfs")
		if !ok || strings.HasPrefix(hex, ".") {
			continue
		}
		meta, err := s.readMeta("sha256:"+hex, hex)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("list the store: %w", err))
			continue
		}
		all = append(all, meta)
	}
	slices.SortFunc(all, func(a, b Meta) int { return a.Created.Compare(b.Created) })
	return all, errors.Join(errs...)
}

// Remove removes an image.
func (s *Store) Remove(ctx context.Context, digest string) error {
	hex, err := hexOf(digest)
	if err == nil {
		err = s.removeIf(ctx, hex, func() bool { return true })
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("remove image %s: %w", digest, err)
	}
	return nil
}

// removeIf removes an image, under its lease, if then it is still to be removed.
// Where there is no space left for a lease it goes without: who produces the image
// meanwhile may have to do it again.
func (s *Store) removeIf(ctx context.Context, hex string, still func() bool) error {
	held, err := lease.Acquire(ctx, s.leasePath(hex), lease.Options{})
	switch {
	case err == nil:
		defer held.Close()
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, fs.ErrNotExist):
	default:
		return err
	}
	if !still() {
		return nil
	}
	return s.remove(hex)
}

// remove removes the squashfs first, so that no one finds half an image, and what
// is left of one in any case.
func (s *Store) remove(hex string) error {
	err := os.Remove(s.path(hex + ".squashfs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(s.path(hex + ".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return err
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, "sha256", name) }

func hexOf(digest string) (string, error) {
	if !ref.IsDigest(digest) {
		return "", fmt.Errorf("digest %q: want a sha256 digest", digest)
	}
	return strings.TrimPrefix(digest, "sha256:"), nil
}
