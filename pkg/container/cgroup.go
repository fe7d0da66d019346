// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	hierarchies "github.com/opencontainers/cgroups"
)

// JoinCgroups moves a process into all cgroups of another one, where those are
// not its own already. Nothing is moved where Slurm uses no cgroups.
func JoinCgroups(pid, other int) error {
	own, err := hierarchies.ParseCgroupFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	wanted, err := hierarchies.ParseCgroupFile(fmt.Sprintf("/proc/%d/cgroup", other))
	if err != nil {
		return err
	}
	for _, controller := range slices.Sorted(maps.Keys(wanted)) {
		if wanted[controller] == own[controller] {
			continue
		}
		dir, err := cgroupDir(controller, wanted[controller])
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cgroupDir returns the directory of a cgroup; version 2 has no controller in
// its line (cgroups(7), /proc/PID/cgroup).
func cgroupDir(controller, path string) (string, error) {
	switch {
	case controller != "":
		at, err := hierarchies.FindCgroupMountpoint("", controller)
		return filepath.Join(at, path), err
	case hierarchies.IsCgroup2UnifiedMode():
		return filepath.Join("/sys/fs/cgroup", path), nil
	}
	return filepath.Join("/sys/fs/cgroup/unified", path), nil
}
