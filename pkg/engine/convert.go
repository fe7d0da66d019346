// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"

	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/mountns"
)

// limitConversions returns what makes a cgroup for a conversion, beside those of Slurm's
// jobs. It waits for the first task, which tells where they are.
func (e *Engine) limitConversions() (image.MakeCgroup, error) {
	task, err := e.firstTask()
	if err != nil || task == 0 {
		return nil, err
	}
	return func(name string, memory int64) (image.Cgroup, error) { return e.limitConversion(task, name, memory) }, nil
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
