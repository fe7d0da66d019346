// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/export"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/load"
	"github.com/brolga-hpc/brolga/pkg/image/pull"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/squash"
)

// runExport writes an image to a squashfs, an OCI image layout or an archive of
// one. What the cache lacks is pulled first. The target appears when it is
// complete, or not at all.
func runExport(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	force := fs.Bool("force", false, "replace what is there")
	if err := v.parse(fs, args, 2, 2); err != nil {
		return err
	}
	if err := command.Hide(); err != nil { // it will have passwords
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	r, err := parseImage(fs.Arg(0))
	if err != nil {
		return err
	}
	to, err := parseTarget(fs.Arg(1))
	if err != nil {
		return err
	}
	if err := exportTo(ctx, conf, r, to, *force); err != nil {
		return fmt.Errorf("export %s: %w", r, err)
	}
	return nil
}

// parseTarget reads where to export to, an absolute path in the end. What has no
// prefix is a squashfs.
func parseTarget(arg string) (ref.Ref, error) {
	to, err := parseImage(arg)
	if err != nil || to.Kind == ref.Registry {
		to, err = parseImage("./" + arg)
	}
	if err != nil {
		return ref.Ref{}, err
	}
	if (to.Kind != ref.Squashfs && to.Kind != ref.OCI && to.Kind != ref.OCIArchive) || to.Digest != "" || isTar(to) {
		return ref.Ref{}, usagef("export: %s: want FILE.sqsh, oci:DIR[:NAME] or oci-archive:FILE[:NAME]", fault.Line(errors.New(arg)))
	}
	return to, nil
}

// isTar tells whether a squashfs would have the name of an archive, which is meant then.
func isTar(to ref.Ref) bool {
	return to.Kind == ref.Squashfs && slices.ContainsFunc([]string{".tar", ".tar.gz", ".tgz", ".tar.zst"}, func(suffix string) bool {
		return strings.HasSuffix(to.Path, suffix)
	})
}

func exportTo(ctx context.Context, conf config.Config, r, to ref.Ref, force bool) error {
	if _, err := os.Lstat(to.Path); err == nil && !force {
		return exists(to.Path)
	}
	img, err := complete(ctx, conf, r)
	if err != nil {
		return err
	}
	// Beside the target, so that it can be moved there.
	scratch, err := os.MkdirTemp(filepath.Dir(to.Path), ".brolga-export-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	img.Name = to.Tag
	made := filepath.Join(scratch, "image")
	switch to.Kind {
	case ref.OCI:
		err = export.Directory(ctx, img, made)
	case ref.OCIArchive:
		err = writeFile(made, func(w io.Writer) error { return export.Archive(ctx, img, w) })
	default:
		err = exportSquashfs(ctx, conf, img, made)
	}
	if err != nil {
		return err
	}
	return move(made, to.Path, force)
}

// complete returns the image with all layers in the cache, also where the store
// has it.
func complete(ctx context.Context, conf config.Config, r ref.Ref) (export.Image, error) {
	dir, err := cacheDir(conf)
	if err != nil {
		return export.Image{}, err
	}
	var digest string
	switch {
	case r.Kind == ref.Directory:
		return export.Image{}, errors.New("a directory is no image that could be exported")
	case r.IsLocal():
		var res load.Result
		res, err = load.Load(ctx, load.Options{Ref: r, Layout: dir})
		digest = res.Manifest
	default:
		var res pull.Result
		res, err = pull.Pull(ctx, pull.Options{
			Ref: r, Layout: dir, IfMissing: true,
			Credentials: &credential.Finder{Env: os.Environ()}, Registries: conf.Registries, Policy: pullPolicy(conf.Policy, r),
		})
		digest = res.Manifest
	}
	if err != nil {
		return export.Image{}, err
	}
	l, err := layout.Open(dir)
	if err != nil {
		return export.Image{}, err
	}
	m, err := l.Manifest(digest, layout.Host())
	return export.Image{Layout: l, Manifest: m}, err
}

// exportSquashfs writes the root file system as the store would have it.
func exportSquashfs(ctx context.Context, conf config.Config, img export.Image, path string) error {
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
	_, err = squash.Convert(ctx, in, path, conf.Tar2sqfs, conf.Convert)
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
	return fault.WithHint(fmt.Errorf("%s exists", printable(path)), "choose another name, or give --force to replace it")
}
