// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/convert"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/sandbox"
)

// runConvert adds an image to the store. It is internal: package image calls it,
// as the store owner.
//
//	brolga convert [--config FILE] [--user NAME] [--platform PLATFORM] [--own DIR] [--verify] NAME MANIFEST-DIGEST
//
// Descriptor 3 is the manifest, 4 the configuration, 5 and following are the
// layers in the manifest's order. They belong to the user and may change while
// they are read. If the store has the image, or gets it from another process
// meanwhile, there is nothing to do.
//
// It reads the manifest itself and leaves the configuration and the layers to brolga
// squash, a process that can reach one file of the store.
//
// Where the site's policy requires a signature of images with that name, the
// evidence is on standard input. It is verified here, because here no user can
// interfere, and the store notes with the image whose signature it has. With
// --verify that is all: the store has the image.
//
// With --own the store is one of the caller's, in which all files belong to root:
// where it is used from, there is nobody else.
func runConvert(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	user := fs.String("user", "", "`NAME` of who wants the image, for lists")
	own := fs.String("own", "", "the caller's own store `DIR`")
	platform := fs.String("platform", "", "`PLATFORM` that the user asks for, if not this machine's")
	only := fs.Bool("verify", false, "only verify the signature of a stored image")
	if err := v.parse(fs, args, 2, 2); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	r, err := ref.Parse(fs.Arg(0))
	if err != nil {
		return err
	}
	owner, err := convertAs(&conf, *own)
	if err != nil {
		return err
	}
	if uint32(os.Geteuid()) != owner.UID {
		return fault.WithHint(fmt.Errorf("convert %s: not the store owner, %s", r, conf.StoreOwner), "this is called where an image is used; there is no need to call it")
	}
	if err := errors.Join(command.CloseOnExec(), sandbox.Limit(conf.Convert)); err != nil {
		return fmt.Errorf("convert %s: %w", r, err)
	}
	wanted, err := layout.PlatformOr(*platform, layout.Host())
	if err != nil {
		return err
	}
	stores, digest := store.NewTiers(conf.Store, owner), fs.Arg(1)
	signed, err := convert.VerifySignature(conf.Policy, r, digest, os.Stdin)
	if err == nil && !*only {
		of := convert.Order{Name: r, User: *user, OneOwner: *own != "", Platform: wanted, ConfigPath: *configPath}
		err = convert.Convert(ctx, conf, stores, of, digest)
	}
	if err == nil && len(signed) > 0 {
		err = convert.NoteSigned(ctx, stores, digest, signed)
	}
	if err != nil {
		return fmt.Errorf("convert %s: %w", r, err)
	}
	return nil
}

// convertAs returns who the image is converted for. A store of the caller's own
// takes the place of the site's.
func convertAs(conf *config.Config, own string) (identity.User, error) {
	if own == "" {
		return store.LookupOwner(conf.StoreOwner)
	}
	conf.Store, conf.StoreMaxSize, conf.StoreUserShare = config.Dirs{own}, config.Portion{}, config.Portion{}
	return identity.User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, nil
}

// runSquash writes the squashfs of an image. It is internal: brolga convert calls it.
//
//	brolga squash [--config FILE] [--platform PLATFORM] [--own] [--most BYTES] DRAFT MANIFEST-DIGEST
func runSquash(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	platform := fs.String("platform", "", "`PLATFORM` of the image")
	own := fs.Bool("own", false, "all files belong to root")
	most := fs.Int64("most", 0, "`BYTES` that the user may have in the store, 0 without a limit")
	if err := v.parse(fs, args, 2, 2); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	wanted, err := layout.PlatformOr(*platform, layout.Host())
	if err != nil {
		return err
	}
	s := convert.Squashing{Draft: fs.Arg(0), Digest: fs.Arg(1), OneOwner: *own, Platform: wanted, Most: *most}
	return convert.Squash(ctx, conf, s, os.Stdout)
}
