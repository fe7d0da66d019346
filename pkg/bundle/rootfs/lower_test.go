// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

const squashfuse = "/usr/bin/squashfuse_ll"

// buildAs is buildAndRun for images that are used in another way.
func buildAs(t *testing.T, p Params, f func(r *Rootfs) error) error {
	t.Helper()
	p.Dir, p.Lock, p.TmpfsSize, p.User = t.TempDir(), filepath.Join(t.TempDir(), "lock"), "16m", ada
	if p.Servers == nil {
		p.Servers = &Servers{}
	}
	return mountns.Do(nil, func() (err error) {
		if p.Way == userfile.Bind { // only what was opened in the namespace can be mounted there
			if p.Image, err = userfile.Directory(p.Image.Name()); err != nil {
				return err
			}
			defer p.Image.Close()
		}
		r, err := Build(p)
		if err != nil {
			return err
		}
		return errors.Join(f(r), r.Close())
	})
}

// readable opens a copy of the image that the user may read.
func readable(t *testing.T, image *os.File) *os.File {
	t.Helper()
	content, err := os.ReadFile(image.Name())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(makeHost(t, nil), "app.sqsh")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// noSandbox starts programs without the launcher, which need not be installed.
// integration/security/security-sandbox.bats has it.
var noSandbox = config.Sandbox{Mode: config.SandboxOff}

func TestFuse(t *testing.T) {
	needRoot(t)
	if _, err := os.Stat(squashfuse); err != nil {
		t.Skip("needs squashfuse")
	}
	image := readable(t, makeImage(t, imageTree))
	var server int
	servers := &Servers{}
	err := buildAs(t, Params{Image: image, Way: userfile.Fuse, Squashfuse: squashfuse, Sandbox: noSandbox, Servers: servers}, func(r *Rootfs) error {
		server = servers.pids[0]
		return errors.Join(
			expectContent(filepath.Join(r.Path, "file"), "file"),
			os.WriteFile(filepath.Join(r.Path, "file"), []byte("changed"), 0o600),
			expectContent(filepath.Join(r.Path, "file"), "changed"),
			expectFlags(filepath.Join(filepath.Dir(r.Path), "lower"), "ro,nosuid,nodev"),
			expectServer(server),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	// The program ends with the mount, which ended with the namespace.
	ended := make(chan error, 1)
	go func() {
		_, err := unix.Wait4(server, nil, 0, nil)
		ended <- err
	}()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		unix.Kill(server, unix.SIGKILL)
		t.Error("squashfuse is still there")
	}
}

// TestServersEnd: what serves a mount ends with who started it, although its user has
// stopped it, unless it was left to others.
func TestServersEnd(t *testing.T) {
	for _, tt := range []struct {
		name  string
		leave bool
	}{{"killed", false}, {"left", true}} {
		t.Run(tt.name, func(t *testing.T) {
			servers := &Servers{}
			var pid int
			err := servers.start(func() (_ int, err error) {
				pid, err = command.Start(command.Cmd{Path: "/bin/sleep", Args: []string{"600"}})
				return pid, err
			})
			if err == nil {
				err = unix.Kill(pid, unix.SIGSTOP)
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.leave {
				servers.Leave()
			}
			servers.Kill()
			var status unix.WaitStatus
			if tt.leave {
				err = errors.Join(err, unix.Kill(pid, unix.SIGTERM), unix.Kill(pid, unix.SIGCONT))
			}
			_, waitErr := unix.Wait4(pid, &status, 0, nil)
			want := map[bool]unix.Signal{false: unix.SIGKILL, true: unix.SIGTERM}[tt.leave]
			if err := errors.Join(err, waitErr); err != nil || status.Signal() != want {
				t.Errorf("it ended by %v, %v; want %v", status.Signal(), err, want)
			}
		})
	}
}

// expectServer checks whom the program runs as and what it has.
func expectServer(pid int) error {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for _, want := range []string{
		fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", ada.UID), "CapEff:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "NoNewPrivs:\t1\n",
	} {
		if !strings.Contains(string(status), want) {
			return fmt.Errorf("the status of squashfuse lacks %q: %s", want, status)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil || strings.Contains(string(mounts), "squashfuse") {
		return fmt.Errorf("squashfuse has its own mount, %w", err)
	}
	return nil
}

// TestFuseFailures checks that there is always an end, with a reason.
func TestFuseFailures(t *testing.T) {
	needRoot(t)
	if _, err := os.Stat(squashfuse); err != nil {
		t.Skip("needs squashfuse")
	}
	image := readable(t, makeImage(t, imageTree))
	if _, err := image.WriteAt(make([]byte, 96), 0); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, program string
		err, hint     string
	}{
		{"not a squashfs", squashfuse, "squashfuse: ", ""},
		{"a program that ends", "/bin/true", "squashfuse: ", ""},
		{"no program", "/no/such", "/no/such is not installed", "user_squashfs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := buildAs(t, Params{Image: image, Way: userfile.Fuse, Squashfuse: tt.program, Sandbox: noSandbox}, func(*Rootfs) error { return nil })
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(fault.Hint(err), tt.hint) {
				t.Errorf("Build = %v (hint %q); want an error with %q (hint with %q)", err, fault.Hint(err), tt.err, tt.hint)
			}
		})
	}
}

// TestBind checks that a directory of the host is read and never written to.
func TestBind(t *testing.T) {
	needRoot(t)
	host := makeHost(t, []entry{{path: "etc/", mode: 0o755}, {path: "etc/passwd", mode: 0o644}, {path: "secret", mode: 0o600}})
	dir, err := os.OpenFile(host, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	err = buildAs(t, Params{Image: dir, Way: userfile.Bind}, func(r *Rootfs) error {
		if got := r.ReadFile("/etc/passwd"); string(got) != "etc/passwd" {
			return fmt.Errorf("ReadFile(/etc/passwd) = %q", got)
		}
		if got := r.ReadFile("/secret"); got != nil {
			return fmt.Errorf("ReadFile of what the user may not read = %q", got)
		}
		return errors.Join(
			expectContent(filepath.Join(r.Path, "etc/passwd"), "etc/passwd"),
			os.WriteFile(filepath.Join(r.Path, "etc/passwd"), []byte("changed"), 0o600),
			os.WriteFile(filepath.Join(r.Path, "new"), nil, 0o600),
			expectFlags(filepath.Join(filepath.Dir(r.Path), "lower"), "ro,nosuid,nodev"),
			expectFlags(r.Path, "rw,nosuid,nodev"),
		)
	})
	if err != nil {
		t.Error(err)
	}
	if err := expectContent(filepath.Join(host, "etc/passwd"), "etc/passwd"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(host, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a new file is on the host: %v", err)
	}
}
