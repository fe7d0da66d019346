// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/step"
	"github.com/brolga-hpc/brolga/pkg/task"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// nobody is a number that no account has.
const nobody = 4294967000

// TestServeRefuses checks that every task of a step that cannot have its
// container is told why, and that Serve ends with the last of them.
func TestServeRefuses(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes mount namespaces")
	}
	for _, tt := range []struct{ name, source string }{{"at once", "/tmp"}, {"with the first task", "./data"}} {
		t.Run(tt.name, func(t *testing.T) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			namespace, err := os.Open("/proc/self/ns/mnt")
			if err != nil {
				t.Fatal(err)
			}
			defer namespace.Close()
			site := config.Default()
			site.StoreOwner = "no-such-user"
			e := &Engine{
				Step: step.Step{Config: site, Request: request.Request{
					Identity:   request.Identity{Step: "5.0", UID: nobody, Tasks: 3},
					Filesystem: request.Filesystem{Mounts: []request.Mount{{Mount: option.Mount{Source: tt.source, Target: "/data"}}}},
				}},
				Began: time.Now(), Namespace: namespace,
			}
			served := make(chan error)
			go func() { served <- e.Serve(t.Context(), task.Listen(fds[0])) }()
			for range 3 {
				if got := hello(t, fds[1]); !strings.HasPrefix(got, "error=get image /: look up store_owner: ") || !strings.Contains(got, "\x00hint=") {
					t.Errorf("a task is told %q; want the reason", got)
				}
			}
			// One more than Slurm knows is none.
			say(t, fds[1])
			if err := unix.Shutdown(fds[1], unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
			if err := <-served; err == nil || !strings.HasPrefix(err.Error(), "get image") {
				t.Errorf("Serve = %v; want the reason, for the log", err)
			}
			unix.Close(fds[0])
			if got := hear(t, fds[1]); got != "" {
				t.Errorf("one that is no task is told %q; want nothing", got)
			}
			unix.Close(fds[1])
		})
	}
}

// hello plays one task and returns the answer.
func hello(t *testing.T, socket int) string {
	t.Helper()
	say(t, socket)
	return hear(t, socket)
}

func say(t *testing.T, socket int) {
	t.Helper()
	namespace, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	cwd, err := os.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer cwd.Close()
	rights := unix.UnixRights(int(namespace.Fd()), int(cwd.Fd()))
	if err := unix.Sendmsg(socket, []byte("hello=1\x00"), rights, nil, 0); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, socket int) string {
	t.Helper()
	answer := make([]byte, 8192)
	n, err := unix.Read(socket, answer)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer[:n])
}

// TestServeWithoutTasks checks that a step whose tasks never come is no error.
func TestServeWithoutTasks(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	unix.Close(fds[1])
	e := &Engine{Step: step.Step{Request: request.Request{Identity: request.Identity{UID: nobody}, Filesystem: request.Filesystem{Mounts: []request.Mount{{Mount: option.Mount{Source: "."}}}}}}}
	if err := e.Serve(t.Context(), task.Listen(fds[0])); err != nil {
		t.Errorf("Serve = %v; want no error", err)
	}
}

func TestLaps(t *testing.T) {
	began := time.Now().Add(-time.Second)
	l := laps{last: began}
	l.add("first")
	l.hooks(hook.Lap{Name: "mpi", Ended: began, Took: 2500 * time.Microsecond})
	l.add("second")
	got := l.records(began)
	if len(got) != 1 || got[0].Key != "debug" || !strings.HasPrefix(got[0].Value, "container ready in 1") ||
		!strings.Contains(got[0].Value, ": first 1") || !strings.Contains(got[0].Value, " ms, second ") || !strings.Contains(got[0].Value, " ms (mpi 2.5 ms); ") || !strings.HasSuffix(got[0].Value, " ms of processor time") {
		t.Errorf("records = %q", got)
	}
}

func TestLapsWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: writes to directories of root's only")
	}
	began := time.Date(2026, 11, 25, 16, 0, 0, 5, time.UTC)
	l := laps{last: began.Add(3 * time.Millisecond), parts: []part{
		{hook.Lap{Name: "a b", Ended: began.Add(time.Millisecond), Took: 1e6}, true},
		{hook.Lap{Name: "image", Ended: began.Add(3 * time.Millisecond), Took: 3e6}, false},
	}}
	dir := t.TempDir()
	path := filepath.Join(dir, "times")
	for range 2 {
		if err := l.write(path, "n1", "5.0", began); err != nil {
			t.Fatal(err)
		}
	}
	want := "2026-11-25T16:00:00.000000005Z n1 5.0 begin 0\n" +
		"2026-11-25T16:00:00.001000005Z n1 5.0 hook:a_b 1000000\n" +
		"2026-11-25T16:00:00.003000005Z n1 5.0 image 3000000\n" +
		"2026-11-25T16:00:00.003000005Z n1 5.0 ready 3000000\n"
	if text, err := os.ReadFile(path); err != nil || string(text) != want+want {
		t.Errorf("write wrote %q, %v; want %q twice", text, err, want)
	}
	if err := os.Symlink("times", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := l.write(filepath.Join(dir, "link"), "n1", "5.0", began); err == nil {
		t.Error("write follows a link")
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := l.write(path, "n1", "5.0", began); !errors.Is(err, trust.ErrTamperable) {
		t.Errorf("write = %v in a directory of everyone's", err)
	}
}

func TestEnded(t *testing.T) {
	other := errors.New("test")
	if err := ended(io.EOF); err != nil {
		t.Errorf("ended(EOF) = %v; want nil", err)
	}
	if err := ended(other); err != other {
		t.Errorf("ended = %v; want it unchanged", err)
	}
}
