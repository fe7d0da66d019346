// SPDX-License-Identifier: Apache-2.0

package cdi

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/device"
)

// write writes a specification and returns its directory.
func write(t *testing.T, name, text string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: specifications are root's")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

const gpus = `
cdiVersion: 0.6.0
kind: nvidia.com/gpu
containerEdits:
  env: [COMMON=1]
  mounts:
  - {hostPath: /lib/a.so, containerPath: /usr/lib/a.so, options: [ro, nosuid]}
  hooks:
  - {hookName: createContainer, path: /usr/bin/nvidia-cdi-hook, args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib]}
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{path: /dev/nvidia0}, {path: /dev/nvidiactl}]
- name: "1"
  containerEdits:
    deviceNodes: [{path: /dev/nvidia1, hostPath: /dev/other}, {path: /dev/nvidiactl}]
- name: GPU-1
  containerEdits:
    deviceNodes: [{path: /dev/nvidia1, hostPath: /dev/other}]
`

func TestResolve(t *testing.T) {
	dir := write(t, "nvidia.yaml", gpus)
	file := dir + "/nvidia.yaml"
	got := Resolve(device.Query{
		Directories: []string{"/no/such/directory", dir},
		Names:       []string{"nvidia.com/gpu=1"},
		Kinds:       []string{"amd.com/gpu", "nvidia.com/gpu"},
		GPUs:        [][]string{{"GPU-0", "0"}, {"GPU-1", "1"}},
	})
	want := device.Answer{
		Kind: "nvidia.com/gpu",
		Env:  []string{"COMMON=1"},
		Nodes: []device.Node{
			{Host: "/dev/nvidia0", Container: "/dev/nvidia0", Specification: file},
			{Host: "/dev/nvidiactl", Container: "/dev/nvidiactl", Specification: file},
			{Host: "/dev/other", Container: "/dev/nvidia1", Specification: file},
		},
		Mounts: []device.Mount{{Host: "/lib/a.so", Container: "/usr/lib/a.so", Options: []string{"ro", "nosuid"}, Specification: file}},
		Hooks: []device.Hook{{
			Specification: file, Stage: "createContainer", Path: "/usr/bin/nvidia-cdi-hook",
			Args: []string{"nvidia-cdi-hook", "update-ldcache", "--folder", "/usr/lib"},
		}},
		Notes: []string{
			"CDI: nvidia.com/gpu=0 is from " + file, "CDI: nvidia.com/gpu=GPU-1 is from " + file, "CDI: nvidia.com/gpu=1 is from " + file,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Resolve = %+v\nwant %+v", got, want)
	}
	got = Resolve(device.Query{Directories: []string{dir}, Names: []string{"nvidia.com/gpu=0"}, Kinds: []string{"nvidia.com/gpu"}})
	if got.Error != "" || got.Kind != "" || len(got.Nodes) != 2 {
		t.Errorf("Resolve without GPUs of Slurm's = %+v", got)
	}
	got = Resolve(device.Query{Directories: []string{dir}, Kinds: []string{"amd.com/gpu"}, GPUs: [][]string{{"0"}}})
	if !reflect.DeepEqual(got, device.Answer{}) {
		t.Errorf("Resolve of GPUs that no specification is about = %+v; want nothing", got)
	}
}

// TestResolveIgnores checks that what is of no use here is said.
func TestResolveIgnores(t *testing.T) {
	dir := write(t, "a.json", `{"cdiVersion": "1.1.0", "kind": "a/b", "devices": [{"name": "c", "containerEdits": {
		"env": ["A=1"], "additionalGids": [44], "intelRdt": {"closID": "x"}, "netDevices": [{"hostInterfaceName": "eth0", "name": "eth1"}]}}]}`)
	got := Resolve(device.Query{Directories: []string{dir}, Names: []string{"a/b=c"}})
	text := strings.Join(got.Notes, "\n")
	for _, want := range []string{"ignored additionalGids", "ignored intelRdt", "ignored netDevices"} {
		if got.Error != "" || !strings.Contains(text, want) {
			t.Errorf("Resolve = %+v; want %q noted", got, want)
		}
	}
}

func TestResolveOfLaterDirectory(t *testing.T) {
	one := func(node string) string {
		return `{"cdiVersion": "0.6.0", "kind": "a/b", "devices": [{"name": "c", "containerEdits": {"deviceNodes": [{"path": "` + node + `"}]}}]}`
	}
	first, second := write(t, "a.json", one("/dev/first")), write(t, "a.json", one("/dev/second"))
	got := Resolve(device.Query{Directories: []string{first, second}, Names: []string{"a/b=c"}})
	if got.Error != "" || len(got.Nodes) != 1 || got.Nodes[0].Host != "/dev/second" {
		t.Errorf("Resolve = %+v; want the later directory's", got)
	}
	if err := os.WriteFile(second+"/z.json", []byte(one("/dev/third")), 0o644); err != nil {
		t.Fatal(err)
	}
	got = Resolve(device.Query{Directories: []string{first, second}, Names: []string{"a/b=c"}})
	if want := "CDI device a/b=c is in both " + second + "/a.json and " + second + "/z.json"; got.Error != want || got.Hint == "" {
		t.Errorf("Resolve = %+v; want %q and a hint", got, want)
	}
}

func TestResolveErrors(t *testing.T) {
	slurms := device.Query{Kinds: []string{"nvidia.com/gpu"}, GPUs: [][]string{{"MIG-x"}, {"GPU-7", "7"}}}
	asked := func(names ...string) device.Query { return device.Query{Names: names} }
	for _, tt := range []struct {
		name, file, text string
		mode             os.FileMode
		owner            int
		q                device.Query
		err, hint        string
	}{
		{name: "another name", q: asked("nvidia.com/gpu=9"), err: "this node has no CDI device nvidia.com/gpu=9", hint: "of nvidia.com/gpu it has 0, 1, GPU-1"},
		{name: "another kind", q: asked("amd.com/gpu=0"), err: "this node has no CDI device amd.com/gpu=0", hint: "no specification in DIR is about amd.com/gpu"},
		{name: "all are named", q: asked("a/b=c", "nvidia.com/gpu=0", "a/b=d"), err: "this node has no CDI device a/b=c; this node has no CDI device a/b=d"},
		{name: "GPUs of Slurm's", q: slurms, err: "Slurm gave the step GPU MIG-x, and this node has no CDI device nvidia.com/gpu of that name; Slurm gave the step GPU GPU-7 or 7, and"},
		{name: "writable by all", mode: 0o666, q: asked("nvidia.com/gpu=0"), err: "this node has no CDI device nvidia.com/gpu=0; ignored: DIR/nvidia.yaml (owner 0, mode 0666): someone other than root could change it"},
		{name: "a user's", owner: 4711, q: asked("nvidia.com/gpu=0"), err: "ignored: DIR/nvidia.yaml (owner 4711, mode 0644): someone other than root could change it"},
		{name: "unknown key", text: gpus + "more: 1\n", q: asked("nvidia.com/gpu=0"), err: "ignored: DIR/nvidia.yaml: failed to unmarshal CDI Spec: yaml: unmarshal errors"},
		{name: "no YAML", text: "{", q: asked("nvidia.com/gpu=0"), err: "ignored: DIR/nvidia.yaml: "},
		{name: "empty", text: " ", q: asked("nvidia.com/gpu=0"), err: "ignored: DIR/nvidia.yaml: "},
		{name: "no device", text: "cdiVersion: 0.6.0\nkind: a/b\n", q: asked("a/b=c"), err: "ignored: DIR/nvidia.yaml: invalid CDI Spec: invalid spec, no devices"},
		{name: "another version", text: strings.Replace(gpus, "0.6.0", "9.0.0", 1), q: asked("nvidia.com/gpu=0"), err: "ignored: DIR/nvidia.yaml: "},
		{name: "not a specification's name", file: "nvidia.yml", q: asked("nvidia.com/gpu=0"), err: "this node has no CDI device nvidia.com/gpu=0", hint: "no specification in DIR is about nvidia.com/gpu"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.text == "" {
				tt.text = gpus
			}
			if tt.file == "" {
				tt.file = "nvidia.yaml"
			}
			dir := write(t, tt.file, tt.text)
			path := filepath.Join(dir, tt.file)
			if tt.mode != 0 {
				if err := os.Chmod(path, tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chown(path, tt.owner, 0); err != nil {
				t.Fatal(err)
			}
			tt.q.Directories = []string{dir}
			got := Resolve(tt.q)
			want := strings.ReplaceAll(tt.err, "DIR", dir)
			if !strings.Contains(got.Error, want) || got.Hint == "" || strings.Contains(got.Error, "\n") || len(got.Nodes) > 0 {
				t.Errorf("Resolve = %+v; want the error %q and a hint", got, want)
			}
			if hint := strings.ReplaceAll(tt.hint, "DIR", dir); hint != "" && got.Hint != hint {
				t.Errorf("hint %q; want %q", got.Hint, hint)
			}
		})
	}
}

// TestResolveIgnoresDirectoriesOfOthers checks who may say where specifications are.
func TestResolveIgnoresDirectoriesOfOthers(t *testing.T) {
	dir := write(t, "nvidia.yaml", gpus)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	got := Resolve(device.Query{Directories: []string{dir}, Names: []string{"nvidia.com/gpu=0"}})
	if want := dir + " (owner 0, mode 0777): someone other than root could change it"; !strings.Contains(got.Error, want) {
		t.Errorf("Resolve = %+v; want the error %q", got, want)
	}
}
