// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	hierarchies "github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
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

// NodeCgroup is a cgroup beside those of Slurm's jobs. It limits memory that no job
// pays for.
type NodeCgroup struct {
	dir    string
	events string // name of the file that counts what the kernel has killed
}

// NewNodeCgroup makes the cgroup of that name with a limit of memory in bytes, or takes
// over one that a killed process has left. Task is a process of a step, which tells
// where Slurm has its cgroups. The result is nil where Slurm limits no memory.
func NewNodeCgroup(task int, name string, memory int64) (*NodeCgroup, error) {
	of, err := hierarchies.ParseCgroupFile(fmt.Sprintf("/proc/%d/cgroup", task))
	if err != nil {
		return nil, err
	}
	g, limit, err := besideJobs(of, cgroupDir)
	if g == nil || err != nil {
		return nil, err
	}
	g.dir = filepath.Join(g.dir, name)
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(g.dir, limit), []byte(strconv.FormatInt(memory, 10)), 0); err != nil {
		return nil, errors.Join(err, os.Remove(g.dir))
	}
	return g, nil
}

// besideJobs finds where Slurm has the memory cgroups of jobs. Version 1 has
// SLURM/uid_N/job_N, version 2 SCOPE/job_N, where Slurm must have the controller passed
// on to children. Find returns the directory of a cgroup.
func besideJobs(of map[string]string, find func(controller, path string) (string, error)) (g *NodeCgroup, limit string, err error) {
	if above, _, ok := strings.Cut(of["memory"], "/uid_"); ok && above != "" {
		dir, err := find("memory", above)
		return &NodeCgroup{dir: dir, events: "memory.oom_control"}, "memory.limit_in_bytes", err
	}
	above, _, ok := strings.Cut(of[""], "/job_")
	if !ok || of["memory"] != "" || above == "" {
		return nil, "", nil
	}
	dir, err := find("", above)
	if err != nil {
		return nil, "", err
	}
	enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil || !slices.Contains(strings.Fields(string(enabled)), "memory") {
		return nil, "", err
	}
	return &NodeCgroup{dir: dir, events: "memory.events"}, "memory.max", nil
}

// Join moves a process into the cgroup.
func (g *NodeCgroup) Join(pid int) error {
	return os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// Close removes the cgroup, whose processes have ended. It reports whether the kernel
// killed one of them for want of memory. A cgroup that cannot be removed is left to
// whoever makes the next one of that name.
func (g *NodeCgroup) Close() (killed bool) {
	text, _ := os.ReadFile(filepath.Join(g.dir, g.events))
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok && count != "0" {
			killed = true
		}
	}
	// A process that was killed may be about to end.
	for tries := 0; tries < 100 && errors.Is(os.Remove(g.dir), unix.EBUSY); tries++ {
		time.Sleep(10 * time.Millisecond)
	}
	return killed
}
