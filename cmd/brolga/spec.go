// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// runSpec prints what a step would be: the request, which it reads from standard
// input as the library has decided it, and the specification of its container.
// srun --container-dry-run calls it.
func runSpec(_ context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	if err := v.parse(fs, args, 0, 0); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	var r request.Request
	if err := json.NewDecoder(os.Stdin).Decode(&r); err != nil {
		return usagef("spec: read a request: %w", err)
	}
	return printSpec(conf, r)
}

// printSpec prints a request and the specification of its container.
func printSpec(conf config.Config, r request.Request) (err error) {
	var out struct {
		Request request.Request `json:"request"`
		Spec    *specs.Spec     `json:"spec"`
	}
	out.Request = r
	if out.Spec, err = generate(conf, r); err != nil {
		return err
	}
	return printJSON(out)
}

func generate(conf config.Config, r request.Request) (*specs.Spec, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	img, labels, err := imageConfig(conf, r)
	if err != nil {
		return nil, fmt.Errorf("read the configuration of %s: %w", r.Image, err)
	}
	who := identity.User{UID: r.UID, GID: r.GID, Groups: r.Groups, Name: me.Username, Home: me.HomeDir}
	r.Annotations = hook.Annotations(r.Annotations, labels, conf.Hooks.Labels)
	all, err := allHooks(conf)
	if err != nil {
		return nil, err
	}
	s := spec.Generate(r, who, img, "rootfs")
	return s, hook.Edit(hook.Select(all, r), s, r)
}

// imageConfig reads the configuration of an image in the user's cache, and its
// labels.
func imageConfig(conf config.Config, r request.Request) (spec.Image, map[string]string, error) {
	if r.Image.Digest == "" { // a file or directory, which is used as it is
		return spec.Image{}, nil, nil
	}
	l, err := openCache(conf)
	if err != nil {
		return spec.Image{}, nil, err
	}
	platform, err := layout.PlatformOr(r.Platform, layout.Host())
	if err != nil {
		return spec.Image{}, nil, err
	}
	m, err := l.Manifest(r.Image.Digest, platform)
	if err != nil {
		return spec.Image{}, nil, err
	}
	raw, err := l.ReadBlob(m.Config.Digest, layout.MaxManifest)
	if errors.Is(err, layout.ErrNotFound) {
		// Not fetched, since the store has the image.
		return spec.Image{Digest: m.Digest}, nil, nil
	}
	if err != nil {
		return spec.Image{}, nil, err
	}
	var doc struct{ Config inspectedConfig }
	if err := json.Unmarshal(raw, &doc); err != nil {
		return spec.Image{}, nil, err
	}
	c := doc.Config
	return spec.Image{Env: c.Env, WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, Digest: m.Digest}, c.Labels, nil
}
