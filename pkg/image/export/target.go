// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/squash"
)

// Target is where an image is exported to.
type Target struct {
	// Place has an absolute path: of a layout, an archive or a squashfs. Its tag is the name
	// of the image there.
	Place ref.Ref
	// Force replaces what is there.
	Force bool
	// Tar2sqfs and Limits are for a squashfs.
	Tar2sqfs string
	Limits   config.Convert
}

// Check returns an error if something is there that is not to be replaced.
func (t Target) Check() error {
	if _, err := os.Lstat(t.Place.Path); err == nil && !t.Force {
		return exists(t.Place.Path)
	}
	return nil
}

// Write writes the image. The target appears when it is complete, or not at all.
func (t Target) Write(ctx context.Context, img Image) error {
	if err := t.Check(); err != nil {
		return err
	}
	// Beside the target, so that it can be moved there.
	scratch, err := os.MkdirTemp(filepath.Dir(t.Place.Path), ".brolga-export-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	img.Name = t.Place.Tag
	made := filepath.Join(scratch, "image")
	switch t.Place.Kind {
	case ref.OCI:
		err = Directory(ctx, img, made)
	case ref.OCIArchive:
		err = writeFile(made, func(w io.Writer) error { return Archive(ctx, img, w) })
	default:
		err = t.squashfs(ctx, img, made)
	}
	if err != nil {
		return err
	}
	return move(made, t.Place.Path, t.Force)
}

// squashfs writes the root file system as the store would have it.
func (t Target) squashfs(ctx context.Context, img Image, path string) error {
	in := squash.Input{Manifest: img.Manifest}
	for _, d := range img.Manifest.Layers {
		f, err := img.Layout.Blob(d.Digest)
		if err != nil {
			return err
		}
		defer f.Close()
		in.Layers = append(in.Layers, f)
	}
	if img.Manifest.IsSquashfs() {
		return writeFile(path, func(w io.Writer) error {
			_, err := io.Copy(w, in.Layers[0])
			return err
		})
	}
	var err error
	if in.Config, err = img.Layout.ReadBlob(img.Manifest.Config.Digest, layout.MaxManifest); err != nil {
		return err
	}
	_, err = squash.Convert(ctx, in, path, t.Tar2sqfs, t.Limits)
	return err
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Sync(), f.Close())
}

// move gives what was made its name in one step. A directory that is in the way
// is replaced in two, and only if it is an image layout.
func move(made, path string, force bool) error {
	if !force {
		err := unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			// The file system cannot do that; NFS is one.
			if err = os.Link(made, path); errors.Is(err, fs.ErrPermission) { // a directory
				err = os.Rename(made, path)
			}
		}
		if errors.Is(err, fs.ErrExist) {
			return exists(path)
		}
		return err
	}
	if st, err := os.Lstat(path); err == nil && st.IsDir() {
		if _, err := os.Lstat(filepath.Join(path, "oci-layout")); err != nil {
			return fmt.Errorf("%s is a directory, but no OCI image layout: it is not replaced", path)
		}
		if err := os.Rename(path, filepath.Join(filepath.Dir(made), "old")); err != nil {
			return err
		}
	}
	return os.Rename(made, path)
}

func exists(path string) error {
	return fault.WithHint(fmt.Errorf("%s exists", fault.Printable(path)), "choose another name, or give --force to replace it")
}
