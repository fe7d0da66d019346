// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"os"

	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/mountns"
)

// openImage opens the image of the step.
func (r *run) openImage(ctx context.Context) (img image.Image, err error) {
	if r.Local != nil {
		img, err = r.Local.Open()
	} else {
		img, err = image.Open(ctx, r.imageSource(), r.request.Image)
	}
	if err == nil {
		r.event.Digest, r.event.Way = img.Meta.Digest, string(img.Way)
		r.laps.add("image")
	}
	return img, err
}

func (r *run) imageSource() image.Source {
	return image.Source{
		Config:     r.Step.Config,
		ConfigPath: r.Step.ConfigPath,
		User:       r.user(),
		Env:        r.Step.Env,
		NoPull:     r.request.Pull == "never",
		Platform:   r.request.Platform,
		Join:       r.joinStep(r.firstPID),
		Limits:     r.limitConversions,
		Tell:       r.addDebug,
	}
}

// limitConversions returns what makes a cgroup for a conversion, beside those of Slurm's
// jobs. It waits for the first task, which tells where they are.
func (r *run) limitConversions() (image.MakeCgroup, error) {
	task, err := r.firstPID()
	if err != nil || task == 0 {
		return nil, err
	}
	return func(name string, memory int64) (image.Cgroup, error) { return r.limitConversion(task, name, memory) }, nil
}

// limitConversion makes the cgroup. It is nil where Slurm limits no memory with cgroups.
func (e *Engine) limitConversion(task int, name string, memory int64) (image.Cgroup, error) {
	g := conversionCgroup{from: e.Namespace}
	err := mountns.Do(g.from, func() (err error) {
		g.group, err = container.NewNodeCgroup(task, name, memory)
		return err
	})
	if err != nil || g.group == nil {
		return nil, err
	}
	return g, nil
}

// conversionCgroup is a cgroup that is reached in a mount namespace, where
// /sys/fs/cgroup can be written.
type conversionCgroup struct {
	from  *os.File
	group *container.NodeCgroup
}

func (g conversionCgroup) Join(pid int) error {
	return mountns.Do(g.from, func() error { return g.group.Join(pid) })
}

func (g conversionCgroup) Close() (killed bool) {
	_ = mountns.Do(g.from, func() error { // without it the cgroup stays, empty
		killed = g.group.Close()
		return nil
	})
	return killed
}
