// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/image/squash"
	"github.com/brolga-hpc/brolga/pkg/sandbox"
)

// runSave writes the root file system of a container to a squashfs. It is
// internal: package save calls it, as the user, who wants the file, with the
// capability to read what is root's in the container.
//
//	brolga save [--config FILE] [--umask OCTAL] [--root UID:GID] TEMPORARY NAME
//
// Descriptor 3 is the directory that gets the file, 4 the root directory. The file
// has no name until it is complete, or the name TEMPORARY if it must have one. UID and GID are root's in the container.
// Without --umask nobody but the user may read the file.
func runSave(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	root := fs.String("root", "0:0", "`UID:GID` that are root's")
	umask := fs.String("umask", "077", "`PERMISSIONS` that the file does not get")
	if err := v.parse(fs, args, 2, 2); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	uid, gid, err := parseIDs(*root)
	if err != nil {
		return err
	}
	mask, err := strconv.ParseUint(*umask, 8, 9)
	if err != nil {
		return usagef("save: --umask %q: want an octal number", *umask)
	}
	unix.Umask(int(mask)) // of tar2sqfs as well
	// tar2sqfs, which is started next, has no use for it.
	if err := errors.Join(sandbox.DropAmbient(), sandbox.Limit(conf.Convert)); err != nil {
		return err
	}
	dir, tree := os.NewFile(3, "the directory"), os.NewFile(4, "/")
	// It may read everything there is: it keeps the container and the directory.
	box := sandbox.Of(conf.Sandbox, sandbox.Programs(conf.Tar2sqfs), []sandbox.Rule{sandbox.ReadOpen(tree), sandbox.ChangeOpen(dir)})
	if err := box.Enter(); err != nil {
		return err
	}
	s := squash.Saved{Root: tree, Dir: dir, Name: fs.Arg(0), UID: uid, GID: gid, Tar2sqfs: conf.Tar2sqfs}
	if err := squash.Save(ctx, s, conf.Convert); err != nil {
		return err
	}
	if err := unix.Renameat(int(dir.Fd()), fs.Arg(0), int(dir.Fd()), fs.Arg(1)); err != nil {
		return errors.Join(err, unix.Unlinkat(int(dir.Fd()), fs.Arg(0), 0))
	}
	return nil
}

func parseIDs(text string) (uid, gid uint32, err error) {
	first, second, _ := strings.Cut(text, ":")
	u, err1 := strconv.ParseUint(first, 10, 32)
	g, err2 := strconv.ParseUint(second, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, usagef("save: %w", fmt.Errorf("%q: want UID:GID", text))
	}
	return uint32(u), uint32(g), nil
}
