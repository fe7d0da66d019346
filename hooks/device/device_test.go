// SPDX-License-Identifier: Apache-2.0

package device

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/nodecache"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// tree is a directory with files.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) tree { return tree{t, t.TempDir()} }

func (f tree) write(path, text string) {
	f.t.Helper()
	path = filepath.Join(f.dir, path)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f tree) link(path, target string) {
	f.t.Helper()
	if err := os.Symlink(target, filepath.Join(f.dir, path)); err != nil {
		f.t.Fatal(err)
	}
}

func (f tree) run(program string, args ...string) {
	f.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = f.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("%s: %v: %s", program, err, out)
	}
}

// library makes a library with a SONAME.
func (f tree) library(path, soname string) {
	f.t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		f.t.Skip("needs a C compiler")
	}
	f.write(path+".c", "int f(void) { return 1; }")
	f.run("gcc", "-shared", "-fPIC", "-Wl,-soname,"+soname, "-o", f.dir+path, f.dir+path+".c")
	if err := os.Remove(f.dir + path + ".c"); err != nil {
		f.t.Fatal(err)
	}
}

// ldconfig makes the loader's cache of directories.
func (f tree) ldconfig(directories ...string) {
	f.t.Helper()
	f.write("/etc/ld.so.conf", strings.Join(directories, "\n")+"\n")
	f.run("/sbin/ldconfig", "-r", f.dir)
}

// OpenFile makes the tree an image. Its links are relative.
func (f tree) OpenFile(path string) (*os.File, string, error) {
	resolved, err := filepath.EvalSymlinks(filepath.Join(f.dir, path))
	if err != nil {
		return nil, "", err
	}
	file, err := os.Open(resolved)
	return file, strings.TrimPrefix(resolved, f.dir), err
}

func (f tree) Cover(*os.File, string) error { panic("not called") }
func (f tree) Add(string, string) error     { panic("not called") }
func (f tree) AddFile(string, []byte) error { panic("not called") }

// newImage returns an image with a C library, and one of the host's driver.
func newImage(t *testing.T) tree {
	f := newTree(t)
	f.write("/usr/lib/libc.so.6", "")
	f.write("/opt/old/libcuda.so.1.0", "")
	f.link("/opt/old/libcuda.so.1", "libcuda.so.1.0")
	return f
}

// program builds the program that reads specifications.
func program(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: specifications are root's")
	}
	path := filepath.Join(t.TempDir(), "brolga-parse")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", path, "../../cmd/brolga-parse")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build brolga-parse: %v: %s", err, out)
	}
	return path
}

func gpus(indices ...int) slurm.GPUs {
	var g slurm.GPUs
	for i, index := range indices {
		g.List = append(g.List, slurm.GPU{Index: index, Position: i})
	}
	g.Numbers = []slurm.GPUNumbers{{Variable: "CUDA_VISIBLE_DEVICES"}}
	return g
}

// inspect runs the hook as the engine does, and returns what is in the image's
// environment then.
func (h Hook) inspect(t *testing.T, image tree, a request.Accelerators, env ...string) (hook.Findings, []string, error) {
	t.Helper()
	r := request.Request{Hooks: request.Hooks{Accelerators: &a}}
	s := &specs.Spec{Process: &specs.Process{Env: env}}
	if err := h.Edit(s, r); err != nil {
		t.Fatal(err)
	}
	found, err := h.Inspect(hook.NewImage(image), s, r)
	return found, s.Process.Env, err
}

// short writes mounts as "SOURCE TARGET[ ro][ dev]".
func short(mounts []specs.Mount, prefixes ...string) []string {
	var all []string
	for _, m := range mounts {
		line := m.Source + " " + m.Destination
		for _, flag := range []string{"ro", "dev"} {
			if slices.Contains(m.Options, flag) {
				line += " " + flag
			}
		}
		for _, prefix := range prefixes {
			line = strings.ReplaceAll(line, prefix, "")
		}
		all = append(all, line)
	}
	return all
}

func checkLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func links(found hook.Findings) []string {
	var all []string
	for _, l := range found.Links {
		all = append(all, l.Path+" -> "+l.Target)
	}
	return all
}

const specification = `{
	"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu",
	"containerEdits": {
		"env": ["NVIDIA_VISIBLE_DEVICES=void", "A=1"],
		"deviceNodes": [{"path": "/dev/nvidiactl", "hostPath": "/dev/null"}],
		"mounts": [
			{"hostPath": "HOST/lib/libcuda.so.550.54", "containerPath": "/usr/lib64/libcuda.so.550.54", "options": ["ro", "nosuid", "rbind", "rprivate"]},
			{"hostPath": "HOST/lib/libnvidia-ml.so.550.54", "containerPath": "/usr/lib64/libnvidia-ml.so.550.54", "options": ["ro"]},
			{"hostPath": "HOST/bin/nvidia-smi", "containerPath": "/usr/bin/nvidia-smi", "options": ["ro"]},
			{"hostPath": "HOST/bin/nvidia-smi", "containerPath": "/proc/driver/nvidia/x"}
		],
		"hooks": [
			{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "create-symlinks", "--link", "libcuda.so.1::/usr/lib64/libcuda.so", "--link=../x::/dev/dri/by-path/y"]},
			{"hookName": "createContainer", "path": "/usr/bin/nvidia-ctk", "args": ["nvidia-ctk", "hook", "update-ldcache", "--folder", "/usr/lib64"]},
			{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "chmod", "--mode", "755", "--path", "/dev/dri"]},
			{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "enable-cuda-compat", "--host-driver-version=550.54"]},
			{"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "of-tomorrow"]},
			{"hookName": "createRuntime", "path": "/opt/vendor/hook", "args": ["hook", "x"], "env": ["B=1"], "timeout": 3}
		]
	},
	"devices": [
		{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/zero"}]}},
		{"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1", "hostPath": "/dev/full"}]}}
	]
}`

func TestInspectCDI(t *testing.T) {
	host := newTree(t)
	host.library("/lib/libcuda.so.550.54", "libcuda.so.1")
	host.library("/lib/libnvidia-ml.so.550.54", "libnvidia-ml.so.1")
	host.write("/bin/nvidia-smi", "#!/bin/sh\n")
	host.write("/cdi/gpu.json", strings.ReplaceAll(specification, "HOST", host.dir))
	image := newImage(t)
	image.ldconfig("/usr/lib", "/opt/old")
	h := Hook{Root: "/no/such/root", Program: program(t)}
	a := request.Accelerators{CDI: config.CDI{Directories: []string{host.dir + "/cdi"}}, GPU: config.Default().GPU, GPUs: gpus(1)}
	got, env, err := h.inspect(t, image, a, "PATH=/bin", "NVIDIA_VISIBLE_DEVICES=all", "CUDA_VISIBLE_DEVICES=0,1,2")
	if err != nil {
		t.Fatal(err)
	}
	checkLines(t, "the image's environment", env, []string{"PATH=/bin", "NVIDIA_VISIBLE_DEVICES=void"})
	checkLines(t, "environment", got.Env, []string{"NVIDIA_VISIBLE_DEVICES=void", "A=1"})
	checkLines(t, "mounts", short(got.Mounts, host.dir), []string{
		"/dev/null /dev/nvidiactl dev",
		"/dev/full /dev/nvidia1 dev",
		"/lib/libcuda.so.550.54 /usr/lib64/libcuda.so.550.54 ro",
		"/lib/libnvidia-ml.so.550.54 /usr/lib64/libnvidia-ml.so.550.54 ro",
		"/bin/nvidia-smi /usr/bin/nvidia-smi ro",
	})
	checkLines(t, "links", links(got), []string{
		"/usr/lib64/libcuda.so -> libcuda.so.1",
		"/dev/dri/by-path/y -> ../x",
		"/usr/lib/libcuda.so.1 -> /usr/lib64/libcuda.so.550.54",
		"/usr/lib/libnvidia-ml.so.1 -> /usr/lib64/libnvidia-ml.so.550.54",
	})
	three := 3
	if want := []hook.Program{{Origin: host.dir + "/cdi/gpu.json", Stage: "createRuntime", Hook: specs.Hook{Path: "/opt/vendor/hook", Args: []string{"hook", "x"}, Env: []string{"B=1"}, Timeout: &three}}}; !reflect.DeepEqual(got.Programs, want) {
		t.Errorf("programs %+v; want %+v", got.Programs, want)
	}
	if want := []hook.Numbers{{Variable: "CUDA_VISIBLE_DEVICES", New: map[int]int{1: 0}}}; !reflect.DeepEqual(got.Numbers, want) {
		t.Errorf("numbers %+v; want %+v", got.Numbers, want)
	}
	notes := strings.Join(got.Notes, "\n")
	for _, want := range []string{"nvidia.com/gpu=1 is from", "ignored mount at /proc/driver/nvidia/x", "ignored hook of-tomorrow"} {
		if !strings.Contains(notes, want) {
			t.Errorf("notes %q; want %q", notes, want)
		}
	}
	for _, m := range got.Mounts {
		if !slices.Contains(m.Options, "x-brolga.user") {
			t.Errorf("%s is not opened as the user", m.Source)
		}
	}
}

// TestQuery checks by which names GPUs of Slurm's are looked for.
func TestQuery(t *testing.T) {
	got := query(request.Accelerators{GPUs: slurm.GPUs{List: []slurm.GPU{{Index: 1}, {Index: 2, ID: "GPU-x"}, {Index: 7, ID: "MIG-y"}}}})
	if want := [][]string{{"1"}, {"GPU-x", "2"}, {"MIG-y"}}; !reflect.DeepEqual(got.GPUs, want) {
		t.Errorf("query for %q; want %q", got.GPUs, want)
	}
}

// TestRemembered checks what is asked for again: nothing, until a file changes.
func TestRemembered(t *testing.T) {
	host := newTree(t)
	host.library("/lib/libcuda.so.550.54", "libcuda.so.1")
	host.library("/lib/libnvidia-ml.so.550.54", "libnvidia-ml.so.1")
	host.write("/bin/nvidia-smi", "#!/bin/sh\n")
	host.write("/cdi/gpu.json", strings.ReplaceAll(specification, "HOST", host.dir))
	image := newImage(t)
	h := Hook{Root: "/no/such/root", Program: program(t)}
	known := hook.Cached{Memory: nodecache.At(t.TempDir()), Image: "sha256:x"}
	inspect := func(a request.Accelerators) (hook.Findings, error) {
		a.CDI.Directories = []string{host.dir + "/cdi", host.dir + "/late"}
		a.GPU = config.Default().GPU
		s := &specs.Spec{Process: &specs.Process{}}
		found, err := hook.Inspect([]hook.Hook{h}, image, s, request.Request{Hooks: request.Hooks{Accelerators: &a}}, known)
		found.Notes, found.Laps = nil, nil
		return found, err
	}
	first, err := inspect(request.Accelerators{GPUs: gpus(1)})
	if err != nil || len(first.Mounts) == 0 {
		t.Fatalf("Inspect = %+v, %v", first, err)
	}
	h.Program = "/no/such/program" // nothing can be asked
	again, err := inspect(request.Accelerators{GPUs: gpus(1)})
	if err != nil || !reflect.DeepEqual(again, first) {
		t.Errorf("Inspect again = %+v, %v; want %+v", again, err, first)
	}
	if found, err := inspect(request.Accelerators{GPUs: gpus(0)}); err == nil {
		t.Errorf("Inspect for another GPU = %+v; want it asked for", found)
	}
	for _, change := range []func(){
		func() { host.write("/cdi/gpu.json", "{}") },
		func() { host.write("/late/gpu.json", "{}") },
		func() { host.library("/lib/libcuda.so.550.54", "libcuda.so.2") },
	} {
		h.Program = program(t)
		host.write("/cdi/gpu.json", strings.ReplaceAll(specification, "HOST", host.dir))
		if _, err := inspect(request.Accelerators{GPUs: gpus(1)}); err != nil {
			t.Fatal(err)
		}
		h.Program = "/no/such/program"
		change()
		if found, err := inspect(request.Accelerators{GPUs: gpus(1)}); err == nil {
			t.Errorf("Inspect after a change = %+v; want it asked for", found)
		}
	}
}

// TestLibrariesOfTheImage checks what becomes of libraries of the same names.
func TestLibrariesOfTheImage(t *testing.T) {
	host := newTree(t)
	host.library("/lib/libcuda.so.550.54", "libcuda.so.1")
	libraries := func(compatible string, image tree) hook.Findings {
		p := plan{compatible: compatible}
		p.addLibrary(host.dir+"/lib/libcuda.so.550.54", "/drv/libcuda.so.550.54")
		p.addLibraries(hook.NewImage(image))
		return p.found
	}
	covered := newTree(t)
	covered.library("/usr/lib/libc.so.6.0", "libc.so.6")
	covered.library("/opt/old/libcuda.so.470.1", "libcuda.so.1")
	covered.ldconfig("/usr/lib", "/opt/old")
	got := libraries("", covered)
	checkLines(t, "mounts", short(got.Mounts, host.dir), []string{"/lib/libcuda.so.550.54 /opt/old/libcuda.so.470.1 ro"})
	checkLines(t, "links", links(got), []string{"/usr/lib/libcuda.so.1 -> /drv/libcuda.so.550.54"})

	newer := newImage(t)
	newer.write("/usr/local/cuda/compat/libcuda.so.575.1", "")
	newer.link("/usr/local/cuda/compat/libcuda.so.1", "libcuda.so.575.1")
	got = libraries("550.54", newer)
	checkLines(t, "links to a newer driver", links(got), []string{"/usr/lib/libcuda.so.1 -> /usr/local/cuda/compat/libcuda.so.575.1"})
	got = libraries("580.1", newer)
	checkLines(t, "links to an older driver", links(got), []string{"/usr/lib/libcuda.so.1 -> /drv/libcuda.so.550.54"})

	got = libraries("", newTree(t))
	if len(got.Links) > 0 || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "the image has no GNU C library") {
		t.Errorf("without a C library: %+v; want a warning", got)
	}
}

func TestInspectCDIErrors(t *testing.T) {
	h := Hook{Root: "/no/such/root", Program: program(t)}
	for _, tt := range []struct{ edits, err string }{
		{`"deviceNodes": [{"path": "/dev/no-such-device"}]`, "/dev/no-such-device: no such device on this node"},
		{`"deviceNodes": [{"path": "/dev/x", "hostPath": "/etc/passwd"}]`, "/etc/passwd is not a device"},
		{`"deviceNodes": [{"path": "/etc/x", "hostPath": "/dev/null"}]`, "device at /etc/x: want a path below /dev"},
		{`"deviceNodes": [{"path": "/dev/../x", "hostPath": "/dev/null"}]`, "device at /x: want a path below /dev"},
		{`"mounts": [{"hostPath": "/no/such/lib.so", "containerPath": "/a"}]`, "mount of /no/such/lib.so: no such file or directory"},
		{`"mounts": [{"hostPath": "/etc", "containerPath": "/dev"}]`, `mount at "/dev": want a path in the container`},
		{`"mounts": [{"hostPath": "/etc", "containerPath": "/a", "type": "nfs"}]`, `mount at /a: type "nfs" is none of bind and tmpfs`},
		{`"hooks": [{"hookName": "createContainer", "path": "/x/nvidia-cdi-hook", "args": ["x", "create-symlinks", "--link", "a"]}]`, "hook create-symlinks --link=a: want TARGET::PATH"},
	} {
		t.Run(tt.edits, func(t *testing.T) {
			host := newTree(t)
			host.write("/a.json", fmt.Sprintf(`{"cdiVersion": "0.6.0", "kind": "a/b", "devices": [{"name": "c", "containerEdits": {%s}}]}`, tt.edits))
			a := request.Accelerators{CDI: config.CDI{Directories: []string{host.dir}}, Names: []string{"a/b=c"}}
			got, _, err := h.inspect(t, newImage(t), a)
			want := "CDI specification " + host.dir + "/a.json: " + tt.err
			if err == nil || !strings.Contains(err.Error(), want) || fault.Hint(err) == "" {
				t.Errorf("Inspect = %+v, %v; want %q and a hint", got, err, want)
			}
		})
	}
}

func TestNumbers(t *testing.T) {
	local := []slurm.GPUNumbers{{Variable: "V", Local: true}}
	node := []slurm.GPUNumbers{{Variable: "V"}}
	list := []slurm.GPU{{Index: 1}, {Index: 3, Position: 1}}
	host := newTree(t)
	for _, name := range []string{"nvidia0", "nvidia1", "nvidia2", "nvidiactl", "dri/renderD128"} {
		host.write("/dev/"+name, "")
	}
	for _, tt := range []struct {
		name  string
		gpus  slurm.GPUs
		names []string
		want  map[int]int
		shows string // a pattern of the site's, or "user" and a path of the user's
	}{
		{name: "the node's", gpus: slurm.GPUs{List: list, Numbers: node}, want: map[int]int{1: 0, 3: 1}},
		{name: "the step's", gpus: slurm.GPUs{List: list, Numbers: local}, want: map[int]int{0: 0, 1: 1}},
		{name: "the user wants the second", gpus: slurm.GPUs{List: list[1:], Numbers: node}, want: map[int]int{3: 0}},
		{name: "the user wants the step's second", gpus: slurm.GPUs{List: list[1:], Numbers: local}, want: map[int]int{1: 0}},
		{name: "the user names another, too", gpus: slurm.GPUs{List: list, Numbers: node}, names: []string{"k/g=2", "k/other=0"}, want: map[int]int{1: 0, 3: 2}},
		{name: "the user names one of them, too", gpus: slurm.GPUs{List: list, Numbers: node}, names: []string{"k/g=3"}, want: map[int]int{1: 0, 3: 1}},
		{name: "the user names all", gpus: slurm.GPUs{List: list, Numbers: node}, names: []string{"k/g=all"}},
		{name: "the user names all, the step's own are open", gpus: slurm.GPUs{List: list, Numbers: local}, names: []string{"k/g=all"}, want: map[int]int{0: 0, 1: 1}},
		{name: "the site shows others, too", gpus: slurm.GPUs{List: list, Numbers: node}, shows: "/dev/nvidia*", want: map[int]int{1: 1, 3: 3}},
		{name: "the site shows all", gpus: slurm.GPUs{List: list, Numbers: node}, shows: "/dev/dri"},
		{name: "the user shows another, too", gpus: slurm.GPUs{List: list, Numbers: node}, shows: "user /dev/nvidia0", want: map[int]int{1: 1, 3: 2}},
		{name: "the user shows all", gpus: slurm.GPUs{List: list, Numbers: node}, shows: "user /dev/dri/"},
		{name: "names", gpus: slurm.GPUs{List: list}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var want []hook.Numbers
			if tt.want != nil {
				want = []hook.Numbers{{Variable: "V", New: tt.want}}
			}
			r := request.Request{Hooks: request.Hooks{Accelerators: &request.Accelerators{GPUs: tt.gpus, Names: tt.names}}}
			if path, ok := strings.CutPrefix(tt.shows, "user "); ok {
				r.Mounts = []request.Mount{{Mount: option.Mount{Source: path}}}
			} else if tt.shows != "" {
				r.Devices = []string{tt.shows}
			}
			if got := numbers(r, "k/g", host.dir); !reflect.DeepEqual(got, want) {
				t.Errorf("numbers = %+v; want %+v", got, want)
			}
		})
	}
}
