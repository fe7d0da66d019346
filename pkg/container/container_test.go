// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	// The test's program is the init, too, as the helper is.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/bundle"
	"github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/request"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "init" {
		Init()
	}
	os.Exit(m.Run())
}

// probe is a hook that calls a function.
type probe func(*specs.State) error

func (probe) Name() string                   { return "probe" }
func (probe) Describe() hook.Description     { return hook.Description{} }
func (probe) Wanted(request.Request) bool    { return true }
func (p probe) Runtime(s *specs.State) error { return p(s) }

// makeImage makes a squashfs of a root file system and returns it open.
func makeImage(t *testing.T) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: starts containers")
	}
	program, err := exec.LookPath("mksquashfs")
	if err != nil {
		t.Skip("needs mksquashfs")
	}
	tree, path := t.TempDir(), filepath.Join(t.TempDir(), "image.squashfs")
	for _, name := range []string{"etc", "work"} {
		if err := os.Mkdir(filepath.Join(tree, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "app"), []byte("app"), 0o755); err != nil {
		t.Fatal(err)
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

// start makes a bundle and starts its container, on a thread whose namespace
// ends with f. The container is not closed: the process could start no other.
func start(t *testing.T, image *os.File, writable bool, hooks []hook.Hook, f func(c *Container) error) error {
	t.Helper()
	user := identity.User{UID: 4711, GID: 4711, Name: "ada", Home: "/home/ada"}
	runDir := t.TempDir()
	return mountns.Do(nil, func() error {
		b, err := bundle.Create(bundle.Params{
			RunDir: runDir,
			Request: request.Request{
				Identity:   request.Identity{Step: "5.0", UID: user.UID, GID: user.GID},
				Filesystem: request.Filesystem{Home: request.HomeNo, TmpfsSize: "16m", Writable: writable},
				Source:     request.Source{Image: ref.Ref{Registry: "docker.io", Repository: "library/ubuntu", Tag: "24.04"}},
			},
			Image:       image,
			ImageConfig: spec.Image{WorkingDir: "/work"},
			User:        user,
			Account:     identity.User{Name: user.Name, UID: user.UID, GID: user.GID, Home: user.Home, Shell: "/bin/sh"},
			Hooks:       hooks,
		})
		if err != nil {
			return err
		}
		c, err := Start(b, "step-5.0", hooks)
		if err != nil {
			return err
		}
		return errors.Join(f(c), c.End())
	})
}

// cgroups lists the directories of all cgroup hierarchies.
func cgroups(t *testing.T) string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, "brolga") {
			dirs = append(dirs, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(dirs, "\n")
}

func TestStart(t *testing.T) {
	image := makeImage(t)
	before := cgroups(t)
	var state *specs.State
	var namespace *os.File
	remember := probe(func(s *specs.State) error { state = s; return nil })
	err := start(t, image, true, []hook.Hook{remember}, func(c *Container) error {
		namespace = c.Namespace
		if same, err := mountns.Same(c.Namespace, c.builder); err != nil || same {
			return fmt.Errorf("the container's namespace is its builder's: %v, %w", same, err)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d/app", c.Root.Fd())); err != nil {
			return fmt.Errorf("root of the container: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if state == nil || state.Pid <= 0 || state.Bundle == "" {
		t.Errorf("the hook got the state %+v", state)
	}
	// No process of the container is left, and what keeps it is the descriptor.
	if err := unix.Kill(state.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the container's init: %v; want it gone", err)
	}
	if after := cgroups(t); after != before {
		t.Errorf("cgroups before: %s\nafter: %s", before, after)
	}
	expectInside(t, namespace, true)
}

// expectInside looks at the container as a task that joins does.
func expectInside(t *testing.T, namespace *os.File, writable bool) {
	t.Helper()
	err := mountns.Do(namespace, func() error {
		var errs []error
		if text, err := os.ReadFile("/app"); err != nil || string(text) != "app" {
			errs = append(errs, fmt.Errorf("/app holds %q, %w", text, err))
		}
		for _, path := range []string{"/proc/self/status", "/sys/kernel", "/dev/null", "/etc/passwd", "/work"} {
			if _, err := os.Stat(path); err != nil {
				errs = append(errs, err)
			}
		}
		for _, path := range []string{"/usr", "/var", "/home"} { // of the host
			if _, err := os.Stat(path); err == nil {
				errs = append(errs, fmt.Errorf("%s is there", path))
			}
		}
		if err := os.WriteFile("/dev/null", nil, 0); err != nil {
			errs = append(errs, err)
		}
		if err := os.WriteFile("/new", nil, 0o600); (err == nil) != writable {
			errs = append(errs, fmt.Errorf("write /new: %v; want it possible %v", err, writable))
		}
		if err := os.WriteFile("/sys/kernel/profiling", []byte("0"), 0); !errors.Is(err, unix.EROFS) {
			errs = append(errs, fmt.Errorf("write to /sys: %v; want it read-only", err))
		}
		return errors.Join(append(errs, checkFlags())...)
	})
	if err != nil {
		t.Error(err)
	}
}

// checkFlags checks that all mounts of the container are nosuid, and nodev where
// no device files are on them. Below /proc and /sys are the kernel's own file
// systems, with the host's flags.
func checkFlags() error {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		path, options := fields[4], ","+fields[5]+","
		if strings.HasPrefix(path, "/sys/") || strings.HasPrefix(path, "/proc/") {
			continue
		}
		isDev := path == "/dev" || strings.HasPrefix(path, "/dev/")
		if !strings.Contains(options, ",nosuid,") || (!isDev && !strings.Contains(options, ",nodev,")) {
			errs = append(errs, fmt.Errorf("%s is mounted %s", path, fields[5]))
		}
	}
	return errors.Join(errs...)
}

func TestStartReadOnly(t *testing.T) {
	var namespace *os.File
	err := start(t, makeImage(t), false, nil, func(c *Container) error { namespace = c.Namespace; return nil })
	if err != nil {
		t.Fatal(err)
	}
	expectInside(t, namespace, false)
}

// TestHookFails checks that a container is not used when a hook fails, and that
// nothing of it remains.
func TestHookFails(t *testing.T) {
	pid := 0
	failing := probe(func(s *specs.State) error { pid = s.Pid; return errors.New("no such device") })
	err := start(t, makeImage(t), true, []hook.Hook{failing}, func(*Container) error { return errors.New("started") })
	if err == nil || !strings.HasPrefix(err.Error(), "start container: ") || !strings.Contains(err.Error(), "hook probe: no such device") {
		t.Errorf("Start = %v; want the hook's error", err)
	}
	if err := unix.Kill(pid, 0); pid == 0 || !errors.Is(err, unix.ESRCH) {
		t.Errorf("the container's init %d: %v; want it gone", pid, err)
	}
}
