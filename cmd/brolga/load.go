// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/load"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// runLoad puts the images of archives, layouts and squashfs files into the user's
// cache, under the names that they have there or that --name gives. It prints a
// line with name and digest for each.
func runLoad(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	name := fs.String("name", "", "call the image `NAME[:TAG]`; there must be one FILE with one image")
	if err := v.parse(fs, args, 1, math.MaxInt); err != nil {
		return err
	}
	if *name != "" && fs.NArg() > 1 {
		return usagef("load: --name is for one FILE")
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	var errs []error
	for _, arg := range fs.Args() {
		if err := loadFile(ctx, conf, arg, *name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func loadFile(ctx context.Context, conf config.Config, arg, name string) error {
	from, err := parseSource(arg)
	if err != nil {
		return err
	}
	dir, err := cacheDir(conf)
	if err != nil {
		return err
	}
	if name != "" {
		return loadAs(ctx, load.Options{Ref: from, Layout: dir}, name)
	}
	names := []string{from.Tag}
	if !isWholeName(from.Tag) {
		if names, err = load.Names(ctx, from); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return fault.WithHint(fmt.Errorf("load %s: it does not say what the image is called", from), "give it a name: --name=NAME:TAG")
	}
	for _, name := range names {
		from.Tag = name
		if err := loadAs(ctx, load.Options{Ref: from, Layout: dir}, name); err != nil {
			return err
		}
	}
	return nil
}

// isWholeName says whether a name in an archive is more than a tag.
func isWholeName(name string) bool { return strings.ContainsAny(name, "/:") }

func loadAs(ctx context.Context, o load.Options, name string) error {
	r, err := ref.Parse(name)
	if err == nil && (r.IsLocal() || r.Digest != "") {
		err = fmt.Errorf("image name %q: want NAME[:TAG], as in a registry", name)
	}
	if err != nil {
		return err
	}
	o.Name = r.String()
	res, err := load.Load(ctx, o)
	if err != nil {
		return err
	}
	r.Digest = res.Digest
	fmt.Println(r)
	return nil
}

// parseSource reads the name of a file or directory; what it is may be left to
// its content.
func parseSource(arg string) (ref.Ref, error) {
	if r, err := parseImage(arg); err == nil && r.IsLocal() && r.Kind != ref.Squashfs && r.Kind != ref.Directory {
		return r, nil
	}
	if !strings.HasPrefix(arg, "/") {
		arg = "./" + arg
	}
	r, err := parseImage(arg)
	if err != nil {
		return ref.Ref{}, err
	}
	st, err := os.Stat(r.Path)
	if err != nil {
		return ref.Ref{}, fmt.Errorf("load %s: %w", r, err)
	}
	r.Kind = ref.OCI
	if !st.IsDir() {
		r.Kind = ref.DockerArchive // or an OCI one: the content tells
		if f, err := userfile.Squashfs(r.Path); err == nil {
			f.Close()
			r.Kind = ref.Squashfs
		}
	}
	return r, nil
}
