// SPDX-License-Identifier: Apache-2.0

package request

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// Mount is one mount of the host's files.
type Mount struct {
	option.Mount
	// Site mounts are opened as root and left out where the source is missing.
	Site bool
}

func (r *Request) resolveMounts(c config.Config, o option.Set) error {
	var errs []error
	for _, entry := range c.Container.Mounts {
		mounts, err := option.ParseMounts(entry)
		if err != nil {
			errs = append(errs, fmt.Errorf("container.mounts of the site configuration: %w", err))
		}
		for _, m := range mounts {
			r.Mounts = append(r.Mounts, Mount{m, true})
		}
	}
	if o.Has(option.Mounts) {
		mounts, err := option.ParseMounts(o[option.Mounts])
		errs = append(errs, err)
		for _, m := range mounts {
			r.Mounts = append(r.Mounts, Mount{m, false})
		}
	}
	for _, m := range r.Mounts {
		errs = append(errs, checkTarget(option.Mounts, m))
	}
	return errors.Join(errs...)
}

// resolveDevices comes after resolveMounts: the site's mounts come first.
func (r *Request) resolveDevices(c config.Config, o option.Set, s slurm.Step) error {
	var asked option.Devices
	var errs []error
	if text, given := o[option.Device]; given {
		var err error
		asked, err = option.ParseDevices(text)
		errs = append(errs, err)
	}
	for _, m := range asked.Mounts {
		r.Mounts = append(r.Mounts, Mount{m, false})
		errs = append(errs, checkTarget(option.Device, Mount{m, false}))
	}
	a := Accelerators{Names: asked.Names, CDI: c.CDI, GPU: c.GPU}
	if c.GPU.Slurm && !asked.None {
		var err error
		a.GPUs, err = s.GPUs()
		errs = append(errs, err)
	}
	a.Capabilities, _ = s.Getenv(config.NVIDIACapabilities)
	if len(a.Names) > 0 || len(a.GPUs.List) > 0 {
		r.Accelerators = &a
	}
	return errors.Join(errs...)
}

// isTaken tells whether a destination would hide the whole container or what the
// engine itself needs there.
func isTaken(target string) bool {
	taken := target == "/" || target == "/dev"
	for _, dir := range []string{"/proc", "/sys"} {
		taken = taken || target == dir || strings.HasPrefix(target, dir+"/")
	}
	return taken
}

func checkTarget(name string, m Mount) error {
	target := filepath.Clean(m.Target)
	if !isTaken(target) {
		return nil
	}
	origin := "--" + name
	if m.Site {
		origin = "container.mounts of the site configuration"
	}
	return fmt.Errorf("%s: destination %s is taken: choose another", origin, target)
}

// relativeSources tells whether the image's file or a mount's source depends on
// the step's working directory.
func (r Request) relativeSources() bool {
	if r.Image.IsRelative() {
		return true
	}
	for _, m := range r.Mounts {
		if m.IsRelative() {
			return true
		}
	}
	return r.Saves() && !filepath.IsAbs(r.Save.Path)
}
