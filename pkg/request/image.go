// SPDX-License-Identifier: Apache-2.0

package request

import (
	"errors"
	"fmt"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

func (r *Request) resolveImage(c config.Config, o option.Set, s slurm.Step) error {
	if !o.Has(option.Image) {
		if r.Named != nil && r.Named.How != option.NameCreate {
			return nil // it is known where the container is
		}
		return fault.WithHint(ErrNoImage, "add --"+option.Image+"=IMAGE or --"+option.Environment+"=NAME, or leave the other container options out")
	}
	image, err := ref.Parse(o[option.Image])
	if err != nil {
		return fmt.Errorf("--%s: %w", option.Image, err)
	}
	r.asked, r.Image = image, pinned(image, s)
	if image.IsRelative() {
		return nil // package image knows the directory, and all digests
	}
	return errors.Join(checkRegistry(c, image), c.Policy.Permit(image.Origin(), nil, nil))
}

// checkRegistry refuses what the site blocks, whether it is cached or not.
func checkRegistry(c config.Config, image ref.Ref) error {
	if err := c.Registries.For(image.Registry).Refusal(); err != nil {
		return fmt.Errorf("--%s: %w", option.Image, err)
	}
	return nil
}

// pinned returns the image with what the submitting side resolved it to: the
// digest, and the place of a file. The variable is the user's to change, as is
// the option itself; a value that does not fit is ignored and the reference
// resolved anew.
func pinned(image ref.Ref, s slurm.Step) ref.Ref {
	pin, ok := s.Getenv(option.PinVariable)
	if !ok {
		return image
	}
	with, ok := strings.CutPrefix(pin, image.String()+"@")
	switch {
	case !ok:
	case !image.IsRelative():
		if ref.IsDigest(with) && image.Digest == "" {
			image.Digest = with
		}
	default:
		place, err := ref.Parse(with)
		if err == nil && place.Kind == image.Kind && !place.IsRelative() {
			return place
		}
	}
	return image
}

// Pin returns the value of [option.PinVariable] that says to what the image was
// resolved.
func (r Request) Pin(resolved ref.Ref) string {
	if r.asked.IsRelative() {
		return r.asked.String() + "@" + resolved.String()
	}
	asked := r.asked
	asked.Digest = ""
	return asked.String() + "@" + resolved.Digest
}

func (r *Request) resolvePull(o option.Set) error {
	r.Pull = option.Pulls[0]
	text, given := o[option.Pull]
	if !given {
		return nil
	}
	var err error
	r.Pull, err = option.ParsePull(text)
	return err
}
