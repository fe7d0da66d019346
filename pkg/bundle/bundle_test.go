// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/hooks"
	"github.com/brolga-hpc/brolga/pkg/account"
	"github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// params returns the parameters of a bundle whose request has a bit of
// everything.
func params() Params {
	return Params{
		Request: request.Request{
			Identity:   request.Identity{Step: "5.batch", UID: 4711, GID: 4712, Groups: []uint32{4712, 27}},
			Source:     request.Source{Image: ref.Ref{Registry: "docker.io", Repository: "library/ubuntu", Tag: "24.04"}},
			Filesystem: request.Filesystem{Home: request.HomeIfPresent, TmpfsSize: "16m"},
			Program:    request.Program{Script: "/var/spool/slurmd/job00005/slurm_script"},
		},
		ImageConfig: spec.Image{Env: []string{"PATH=/bin", "A=<&>"}, WorkingDir: "/work", Digest: "sha256:0"},
		User:        identity.User{UID: 4711, GID: 4712, Name: "ada", Home: "/home/ada"},
		Account:     identity.User{Name: "ada", UID: 4711, GID: 4712, Home: "/home/ada", Shell: "/bin/sh"},
		Groups:      []account.Group{{Name: "staff", GID: 4712}, {Name: "video", GID: 27}},
	}
}

// TestWriteConfig checks that the short document is the specification: it has
// no fields for what no hook sets.
func TestWriteConfig(t *testing.T) {
	p := params()
	s := spec.Generate(p.Request, p.User, p.ImageConfig, "/run/brolga/bundle/rootfs")
	if err := hook.Edit(hook.Select(hooks.All(), p.Request), s, p.Request); err != nil {
		t.Fatal(err)
	}
	s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/usr/libexec/hook"}}} // as package external does
	dir := t.TempDir()
	if err := writeConfig(dir, s); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := decode(t, text), decode(t, want); !reflect.DeepEqual(got, want) {
		t.Errorf("config.json = %s\nwant %s", text, want)
	}
}

func decode(t *testing.T, text []byte) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// makeImage makes a squashfs with the given files and returns it open.
func makeImage(t *testing.T, files map[string]string) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts file systems")
	}
	program, err := exec.LookPath("mksquashfs")
	if err != nil {
		t.Skip("needs mksquashfs")
	}
	tree, path := t.TempDir(), filepath.Join(t.TempDir(), "image.squashfs")
	for name, content := range files {
		if err := os.MkdirAll(filepath.Join(tree, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(program, tree, path, "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// hostDir makes a directory that all users can reach, with the file "content".
func hostDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bundle-test")
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "content"), []byte("host"), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func asked(source, target string, site bool, flags ...string) request.Mount {
	return request.Mount{Mount: option.Mount{Source: source, Target: target, Flags: flags}, Site: site}
}

// TestCreate makes a bundle as the helper does and looks at it.
func TestCreate(t *testing.T) {
	p := params()
	p.Image = makeImage(t, map[string]string{"etc/passwd": "root:x:0:0::/:\nubuntu:x:4711:1::/:\n", "etc/group": "x\n", "app": "app"})
	p.Passwd, p.Group = []byte("root:x:0:0::/:\nubuntu:x:4711:1::/:\n"), []byte("root:x:0:\nubuntu:x:27:\n")
	p.RunDir = filepath.Join(t.TempDir(), "run") // made
	p.Request.Script = ""
	host := hostDir(t)
	p.Request.Mounts = []request.Mount{
		asked("/no/such/directory", "/site", true), // left out
		asked(host, "/data", false, "ro", "noexec"),
	}
	err := mountns.Do(nil, func() error {
		b, err := Create(p)
		if err != nil {
			return err
		}
		root := b.Spec.Root.Path
		text, err := os.ReadFile(filepath.Join(b.Dir, "config.json"))
		if err == nil && !json.Valid(text) {
			err = fmt.Errorf("config.json is %q", text)
		}
		if _, statErr := os.Stat(root + "/site"); statErr == nil {
			err = errors.Join(err, errors.New("a mount point was made for a site mount without source"))
		}
		if st, statErr := os.Stat(root + "/work"); statErr != nil || !st.IsDir() {
			err = errors.Join(err, fmt.Errorf("the image's working directory: %v, %w", st, statErr))
		}
		if writeErr := os.WriteFile(root+"/new", nil, 0o644); writeErr == nil {
			err = errors.Join(err, errors.New("the root file system can be written to"))
		}
		if writeErr := os.WriteFile(root+"/data/new", nil, 0o644); writeErr == nil {
			err = errors.Join(err, errors.New("a read-only mount can be written to"))
		}
		hosts, readErr := os.ReadFile("/etc/hosts")
		return errors.Join(err, readErr,
			expectContent(root+"/app", "app"),
			expectContent(root+"/data/content", "host"),
			expectContent(root+"/etc/passwd", "ada:x:4711:4712::/home/ada:/bin/sh\nroot:x:0:0::/:\n"),
			expectContent(root+"/etc/group", "staff:x:4712:ada\nvideo:x:27:ada\nroot:x:0:\n"),
			expectContent(root+"/etc/hosts", string(hosts)),
		)
	})
	if err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Join(p.RunDir, "bundle")); err != nil || len(entries) != 0 {
		t.Errorf("the directory of the bundle holds %v, %v on the host; want nothing", entries, err)
	}
}

func expectContent(path, want string) error {
	got, err := os.ReadFile(path)
	if err == nil && string(got) != want {
		err = fmt.Errorf("%s holds %q; want %q", path, got, want)
	}
	return err
}

// failing is a hook that fails.
type failing struct{}

func (failing) Name() string                            { return "failing" }
func (failing) Describe() hook.Description              { return hook.Description{} }
func (failing) Wanted(request.Request) bool             { return true }
func (failing) Edit(*specs.Spec, request.Request) error { return errors.New("no such device") }

func TestCreateErrors(t *testing.T) {
	image := makeImage(t, map[string]string{"etc/passwd": ""})
	host := hostDir(t)
	for _, tt := range []struct {
		name   string
		change func(*Params)
		err    string
	}{
		{"hook", func(p *Params) { p.Hooks = []hook.Hook{failing{}} }, "hook failing: no such device"},
		{"user's mount", func(p *Params) { p.Request.Mounts = []request.Mount{asked("/no/such", "/a", false)} }, "mount /no/such: no such file or directory on this node"},
		{"home", func(p *Params) { p.Request.Home = request.HomeYes; p.User.Home = "/no/home" }, "mount /no/home: no such file or directory on this node"},
		{
			"all mounts", func(p *Params) {
				p.Request.Mounts = []request.Mount{asked("/no/such", "/a", false), asked(host, "/etc/passwd", false), asked("/no/other", "/b", false)}
			},
			"mount /no/such: no such file or directory on this node\nmount " + host + " at /etc/passwd: the destination is a file, the source a directory\nmount /no/other: no such",
		},
		{"run directory", func(p *Params) { p.RunDir = "/proc/no" }, "make run directory: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := params()
			p.Image, p.RunDir, p.Request.Script = image, t.TempDir(), ""
			tt.change(&p)
			err := mountns.Do(nil, func() error { _, err := Create(p); return err })
			if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("Create = %v; want %q", err, tt.err)
			}
		})
	}
}
