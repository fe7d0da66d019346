// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
	"github.com/brolga-hpc/brolga/pkg/step"
	"github.com/brolga-hpc/brolga/pkg/userfile"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// submit checks what the user asked for and pins the image to a digest, which
// it pulls if the user's cache lacks it. Identity: the user, in srun, sbatch or
// salloc. The answer sets the variable that tells the compute nodes the digest.
func submit(c step.Call) ([]wire.Record, error) {
	c.Step.UID, c.Step.GID, c.Step.Groups = uint32(os.Getuid()), uint32(os.Getgid()), groupsOfProcess()
	c.Step.MultiProg = slurm.MultiProg(os.Args)
	cfg, path, err := c.LoadConfig(os.ReadFile)
	if err != nil {
		return nil, err
	}
	settings, err := readEnvironment(&c, cfg)
	if err != nil {
		return nil, err
	}
	r, err := c.Resolve(cfg)
	if err != nil {
		return nil, err
	}
	dir, err := os.Getwd()
	if err != nil && r.Image.IsRelative() {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	if err := checkSave(r); err != nil {
		return nil, err
	}
	if r.Image == (ref.Ref{}) { // a container that exists has its own
		if r.DryRun {
			return nil, dryRun(cfg, path, r)
		}
		return shared(c, settings, r)
	}
	image := r.Image.In(dir)
	if image.Digest, err = digestOf(cfg, path, r, image, c.Step.Env); err != nil {
		return nil, err
	}
	if r.Verbosity == request.Verbose {
		fmt.Fprintf(os.Stderr, "brolga: the step runs %s\n", image)
	}
	if r.DryRun {
		r.Image = image
		return nil, dryRun(cfg, path, r)
	}
	answer := append(settings,
		wire.Record{Key: "env", Value: option.PinVariable + "=" + r.Pin(image)},
		wire.Record{Key: "job", Value: option.JobImageVariable + "=" + image.String()},
	)
	return shared(c, answer, r)
}

// shared adds what the nodes of the step share, if it is a step, and they do.
func shared(c step.Call, answer []wire.Record, r request.Request) ([]wire.Record, error) {
	if c.Launches && r.SharesSecret() {
		return share(answer, r)
	}
	return answer, nil
}

// checkSave tells early why a container could not be saved, where that is known
// here: a node fills in the rest of the path.
func checkSave(r request.Request) error {
	if r.Save == nil || strings.Contains(filepath.Dir(r.Save.Path), "%") {
		return nil
	}
	dir, err := userfile.Destination(r.Save.Path)
	if err != nil {
		return fmt.Errorf("--%s: %w", option.Save, err)
	}
	return dir.Close()
}

// groupsOfProcess are the calling user's, for the submitting side.
func groupsOfProcess() []uint32 {
	var groups []uint32
	gids, _ := os.Getgroups() // only refused by a broken kernel
	for _, gid := range gids {
		groups = append(groups, uint32(gid))
	}
	return groups
}
