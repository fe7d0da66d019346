// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"path/filepath"
	"testing"
)

// TestBesideJobs has the cgroups of a task as /proc/PID/cgroup lists them.
func TestBesideJobs(t *testing.T) {
	for _, tt := range []struct {
		name    string
		of      map[string]string
		enabled string // for the children of the cgroup that is found, in version 2
		dir     string // below the hierarchy; empty: none
		limit   string
	}{
		{"version 1", map[string]string{"memory": "/slurm_n1/uid_7/job_3/step_0/task_0", "": "/"}, "", "/slurm_n1", "memory.limit_in_bytes"},
		{"version 1 with a prefix", map[string]string{"memory": "/a/slurm/uid_7/job_3/step_batch"}, "", "/a/slurm", "memory.limit_in_bytes"},
		{"version 1 without limits of memory", map[string]string{"memory": "/system.slice/slurmd.service", "freezer": "/slurm/uid_7/job_3"}, "", "", ""},
		{"version 1, where version 2 has another tree", map[string]string{"memory": "/", "": "/x/job_3"}, "memory", "", ""},
		{"version 2", map[string]string{"": "/system.slice/slurmstepd.scope/job_3/step_0/user/task_0"}, "cpuset cpu memory", "/system.slice/slurmstepd.scope", "memory.max"},
		{"version 2 without limits of memory", map[string]string{"": "/system.slice/slurmstepd.scope/job_3/step_0/user/task_0"}, "cpuset pids", "", ""},
		{"version 2 without a job", map[string]string{"": "/system.slice/slurmd.service"}, "memory", "", ""},
		{"version 2, at the top of a namespace", map[string]string{"": "/job_3/step_0"}, "memory", "", ""},
		{"no cgroups", map[string]string{}, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top := t.TempDir()
			g, limit, err := besideJobs(tt.of, func(_, path string) (string, error) {
				dir := filepath.Join(top, path)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return "", err
				}
				return dir, os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(tt.enabled+"\n"), 0o644)
			})
			switch {
			case err != nil:
				t.Fatal(err)
			case tt.dir == "" && g != nil:
				t.Errorf("besideJobs = %s; want none", g.dir)
			case tt.dir != "" && (g == nil || g.dir != top+tt.dir || limit != tt.limit):
				t.Errorf("besideJobs = %v, %s; want %s, %s", g, limit, tt.dir, tt.limit)
			}
		})
	}
}

// TestNodeCgroupClose has files where a cgroup has those that count what was killed.
func TestNodeCgroupClose(t *testing.T) {
	for text, want := range map[string]bool{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 0\n": false,
		"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n": true,
		"low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\n":     false,
		"low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n":     true,
		"": false,
	} {
		g := &NodeCgroup{dir: t.TempDir(), events: "events"}
		if err := os.WriteFile(filepath.Join(g.dir, "events"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := g.Close(); got != want {
			t.Errorf("Close = %v with %q", got, text)
		}
	}
}
