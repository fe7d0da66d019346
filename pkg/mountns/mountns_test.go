// SPDX-License-Identifier: Apache-2.0

package mountns

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes mount namespaces")
	}
}

// own opens the mount namespace of the calling thread.
func own(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func same(t *testing.T, a, b *os.File) bool {
	t.Helper()
	yes, err := Same(a, b)
	if err != nil {
		t.Fatal(err)
	}
	return yes
}

// mark mounts a tmpfs with the file "marker" on dir.
func mark(dir string) error {
	if err := unix.Mount("test", dir, "tmpfs", 0, ""); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "marker"), nil, 0o600)
}

func marked(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "marker"))
	return err == nil
}

func mountedAnywhere(t *testing.T, dir string) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), " "+dir+" ")
}

func TestDo(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	host := own(t)
	err := Do(nil, func() error {
		if same(t, own(t), host) {
			t.Error("the namespace is the caller's")
		}
		if err := mark(dir); err != nil {
			return err
		}
		if !marked(dir) {
			t.Error("what was mounted is not there")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if marked(dir) || mountedAnywhere(t, dir) {
		t.Error("the mount is visible outside")
	}
	if !same(t, own(t), host) {
		t.Error("the caller is in another namespace than before")
	}
}

func TestDoReturnsTheError(t *testing.T) {
	needRoot(t)
	want := errors.New("test")
	if err := Do(nil, func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do = %v; want %v", err, want)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	err = Do(null, func() error { t.Error("called without a namespace"); return nil })
	if err == nil || !strings.HasPrefix(err.Error(), "enter the job's mount namespace: ") {
		t.Errorf("Do in a file that is no namespace = %v; want an error", err)
	}
}

// TestDoFrom checks that a copy starts as its original is and changes only what
// is its own.
func TestDoFrom(t *testing.T) {
	needRoot(t)
	dir, other := t.TempDir(), t.TempDir()
	err := Do(nil, func() error {
		job := own(t)
		if err := mark(dir); err != nil {
			return err
		}
		err := Do(job, func() error {
			if same(t, own(t), job) || !marked(dir) {
				t.Error("want a copy of the job's namespace")
			}
			return mark(other)
		})
		if marked(other) {
			t.Error("what was mounted in the copy is in the original")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestJoin checks that a thread beside another sees and makes the same mounts.
func TestJoin(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	err := Do(nil, func() error {
		here := own(t)
		if err := Join(here, func() error {
			if !same(t, own(t), here) {
				t.Error("the namespace is another")
			}
			return mark(dir)
		}); err != nil {
			return err
		}
		if !marked(dir) {
			t.Error("what was mounted beside is not there")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if marked(dir) {
		t.Error("what was mounted is on the host")
	}
	failure := errors.New("failure")
	if err := Join(own(t), func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("Join = %v; want the function's error", err)
	}
}

// TestDoFollowsTheOriginal checks that a file system that is mounted later, as
// an automounter does, appears in the copy.
func TestDoFollowsTheOriginal(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	err := Do(nil, func() error { // this plays the host
		if err := unix.Mount("test", dir, "tmpfs", 0, ""); err != nil {
			return err
		}
		if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
			return err
		}
		sub := filepath.Join(dir, "sub")
		if err := os.Mkdir(sub, 0o755); err != nil {
			return err
		}
		host, mounted, looked := own(t), make(chan bool), make(chan bool)
		copied := make(chan error)
		go func() {
			copied <- Do(host, func() error {
				looked <- marked(sub)
				<-mounted
				looked <- marked(sub)
				return nil
			})
		}()
		if <-looked {
			t.Error("the marker is there before it was made")
		}
		err := mark(sub)
		mounted <- true
		if !<-looked {
			t.Error("what is mounted later does not appear")
		}
		return errors.Join(err, <-copied)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDoOnTheMainThread checks that the thread whose namespace others see as
// that of the process is never the one that changes.
func TestDoOnTheMainThread(t *testing.T) {
	needRoot(t)
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // some goroutine gets the main thread
		done := make(chan error)
		go func() {
			done <- Do(nil, func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("runs on the main thread")
				}
				return nil
			})
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	if after, err := os.Readlink("/proc/self/ns/mnt"); err != nil || after != before {
		t.Errorf("namespace of the process = %s, %v; want %s", after, err, before)
	}
}

func TestSame(t *testing.T) {
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if yes, err := Same(closed, closed); err == nil || yes {
		t.Errorf("Same of closed files = %v, %v; want an error", yes, err)
	}
	if !same(t, own(t), own(t)) {
		t.Error("a namespace is not the same as itself")
	}
}
