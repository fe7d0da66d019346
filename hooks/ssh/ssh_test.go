// SPDX-License-Identifier: Apache-2.0

package ssh

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// tree is an image in a directory, which notes what is shown in it.
type tree struct {
	dir   string
	shown []string
}

func (r *tree) OpenFile(path string) (*os.File, string, error) {
	st, err := os.Stat(r.dir + path)
	if err == nil && !st.Mode().IsRegular() {
		err = fs.ErrInvalid
	}
	if err != nil {
		return nil, "", err
	}
	f, err := os.Open(r.dir + path)
	return f, path, err
}

func (r *tree) Cover(*os.File, string) error { return fs.ErrInvalid }

func (r *tree) Add(source, target string) error {
	r.shown = append(r.shown, filepath.Base(source)+" at "+target)
	return nil
}

func (r *tree) AddFile(path string, content []byte) error {
	r.shown = append(r.shown, path+": "+string(content))
	return nil
}

func TestWanted(t *testing.T) {
	if (Hook{}).Wanted(request.Request{}) || !(Hook{}).Wanted(request.Request{Hooks: request.Hooks{SSH: &config.SSH{}}}) {
		t.Error("Wanted differs from the request")
	}
}

// TestInspect checks which client images get, and how it is told about the step.
func TestInspect(t *testing.T) {
	const ours = "Include /dev/brolga-ssh/config\n\n"
	for _, tt := range []struct {
		name, path string
		files      []string
		shown      string
		env        []string
	}{
		{"OpenSSH", "/usr/bin:/bin", []string{"/usr/bin/ssh", "/etc/ssh/ssh_config", "/bin/bash", "/bin/sh"}, ours + "content of /etc/ssh/ssh_config", []string{"SHELL=/bin/bash"}},
		{"OpenSSH without settings", "/usr/bin:/bin", []string{"/usr/bin/ssh", "/bin/sh"}, ours, []string{"SHELL=/bin/sh"}},
		{"OpenSSH elsewhere", "/bin:/opt/ssh", []string{"/opt/ssh/ssh"}, ours, nil},
		{"OpenSSH out of sight", "/bin", []string{"/usr/bin/ssh"}, ours, nil},
		{"no client", "/usr/local/bin:/usr/bin:/bin", []string{"/usr/bin/bash"}, "brolga-ssh at /usr/bin/ssh", []string{"SHELL=/usr/bin/bash"}},
		{"no client and another PATH", "/:/bin", nil, "brolga-ssh at /ssh", nil},
		{"no client and no PATH", ".:", nil, "brolga-ssh at /usr/bin/ssh", nil},
		{"a directory", "/usr/bin", []string{"/usr/bin/ssh/x"}, "brolga-ssh at /usr/bin/ssh", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := &tree{dir: t.TempDir()}
			for _, name := range tt.files {
				if err := os.MkdirAll(filepath.Dir(root.dir+name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(root.dir+name, []byte("content of "+name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			s := &specs.Spec{Process: &specs.Process{Env: []string{"PATH=" + tt.path}}}
			found, err := hook.Inspect([]hook.Hook{Hook{}}, root, s, request.Request{}, hook.Cached{})
			if err != nil || len(root.shown) != 1 || !strings.HasSuffix(root.shown[0], tt.shown) || !slices.Equal(found.Env, tt.env) {
				t.Errorf("Inspect shows %q, %q, %v; want %q, %q", root.shown, found.Env, err, tt.shown, tt.env)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	r := request.Request{Nodes: request.Nodes{Peers: []slurm.Node{{Name: "n1"}, {Name: "n2"}}, Own: 1}}
	got := environment([]string{"A=1", "SLURM_PROCID=3", "SLURM_NODEID=0", "PMI_FD=5", "SLURM_JOB_ID=7", "SLURM_RLIMIT_CORE=0", "SLURMD_NODENAME=x"}, r)
	if want := []string{"A=1", "SLURM_JOB_ID=7", "SLURMD_NODENAME=n2", "SLURM_NODEID=1"}; !slices.Equal(got, want) {
		t.Errorf("environment = %q; want %q", got, want)
	}
}

func TestDescribe(t *testing.T) {
	secret, err := slurm.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	site := config.Default().SSH
	r := request.Request{Nodes: request.Nodes{Secret: secret, Peers: []slurm.Node{{Name: "n1", Address: "192.0.2.1"}}}, Hooks: request.Hooks{SSH: &site}}
	s := describe(hook.Step{Request: r, Dir: "/w", Env: []string{"SLURM_RLIMIT_CORE=5"}})
	if s.Nodes[0] != (slurm.Node{Name: "n1", Address: "127.0.0.1"}) || s.Dir != "/w" || s.Limits["CORE"] != 5 {
		t.Errorf("the only node of a step is described as %+v", s)
	}
	r.Peers = append(r.Peers, slurm.Node{Name: "n2", Address: "192.0.2.2"})
	if s := describe(hook.Step{Request: r}); s.Nodes[0].Address != "192.0.2.1" || len(s.Nodes) != 2 {
		t.Errorf("two nodes are described as %+v", s.Nodes)
	}
	r.Sync = &config.Sync{Address: "{node}-hsn"}
	if s := describe(hook.Step{Request: r}); s.Nodes[1].Address != "n2-hsn" || r.Peers[1].Address != "192.0.2.2" {
		t.Errorf("nodes with another network are described as %+v", s.Nodes)
	}
	if strings.Contains(secret.Reveal(), string(s.Key)) {
		t.Error("the server gets the secret itself")
	}
}
