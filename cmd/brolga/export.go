// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/credential"
	"github.com/brolga-hpc/brolga/pkg/image/export"
	"github.com/brolga-hpc/brolga/pkg/image/fetch"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/load"
	"github.com/brolga-hpc/brolga/pkg/image/pull"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
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
	target := export.Target{Place: to, Force: force, Tar2sqfs: conf.Tar2sqfs, Limits: conf.Convert}
	if err := target.Check(); err != nil { // before anything is pulled
		return err
	}
	img, err := complete(ctx, conf, r)
	if err != nil {
		return err
	}
	return target.Write(ctx, img)
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
			Credentials: &credential.Finder{Env: os.Environ()}, Registries: conf.Registries, Policy: fetch.Policy(conf.Policy, r, warn),
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
