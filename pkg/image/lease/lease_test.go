// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// quick are options of a node of this name, with short times.
func quick(host string) Options {
	self := thisProcess()
	self.host = host
	return Options{renew: 20 * time.Millisecond, expiry: 300 * time.Millisecond, self: self}
}

// TestMain is also the program of the other nodes: it adds ones to a counter.
func TestMain(m *testing.M) {
	if path := os.Getenv("LEASE_TEST_PATH"); path != "" {
		if err := beNode(path, os.Getenv("LEASE_TEST_HOST"), os.Getenv("LEASE_TEST_TIMES")); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beNode takes the lease so many times, and each time adds 1 to a counter in a
// way that loses some where two do it at once. With "hold" it takes it once and
// waits until it is told to go on.
func beNode(path, host, times string) error {
	o := quick(host)
	if times == "hold" {
		l, err := Acquire(context.Background(), path, o)
		if err != nil {
			return err
		}
		fmt.Println("held", l.token)
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		fmt.Println("lost", l.Lost(), context.Cause(l.Context()))
		return l.Close()
	}
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	for range n {
		l, err := Acquire(context.Background(), path, o)
		if err != nil {
			return err
		}
		text, _ := os.ReadFile(path + ".counter")
		was, _ := strconv.Atoi(string(text))
		time.Sleep(time.Millisecond)
		if err := os.WriteFile(path+".counter", []byte(strconv.Itoa(was+1)), 0o600); err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// node starts a process that believes to be on a node of that name.
func node(t *testing.T, path, host, times string) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Reader) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LEASE_TEST_PATH="+path, "LEASE_TEST_HOST="+host, "LEASE_TEST_TIMES="+times)
	in, err1 := cmd.StdinPipe()
	pipe, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, in, bufio.NewReader(pipe)
}

// holder starts a node that has the lease when this returns.
func holder(t *testing.T, path, host string) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Reader, token string) {
	t.Helper()
	cmd, in, out = node(t, path, host, "hold")
	line, err := out.ReadString('\n')
	token, ok := strings.CutPrefix(strings.TrimSpace(line), "held ")
	if err != nil || !ok {
		t.Fatalf("the other node says %q, %v", line, err)
	}
	return cmd, in, out, token
}

// TestRace: what processes of several nodes do under a lease, none does at the
// same time as another, and nothing is left.
func TestRace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	const nodes, times = 6, 20
	var all []*exec.Cmd
	for i := range nodes {
		cmd, _, _ := node(t, path, fmt.Sprintf("n%d", i/2), strconv.Itoa(times))
		all = append(all, cmd)
	}
	for _, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if text, _ := os.ReadFile(path + ".counter"); string(text) != strconv.Itoa(nodes*times) {
		t.Errorf("counted to %s; want %d", text, nodes*times)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("left %q; want the counter alone", left)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, newPrefix+"*")); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

// TestDeadHolder: one of this node is noticed at once, one of another when its
// lease is not renewed any more.
func TestDeadHolder(t *testing.T) {
	for _, tt := range []struct {
		name, host string
		atOnce     bool
	}{
		{"of this node", "n1", true},
		{"of another node", "n2", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a")
			cmd, _, _, token := holder(t, path, tt.host)
			o := quick("n1")
			if tt.atOnce {
				o.expiry = time.Hour
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := Acquire(ctx, path, o); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("Acquire of a lease that is held = %v; want %v", err, context.DeadlineExceeded)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			l, err := Acquire(ctx, path, o)
			if err != nil || l.token == token {
				t.Fatalf("Acquire after the holder died = %v", err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStoppedHolder: one that slept too long finds that out, and leaves the
// lease to who has it by then.
func TestStoppedHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	cmd, in, out, _ := holder(t, path, "n2")
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l, err := Acquire(t.Context(), path, quick("n1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // some renewals
	fmt.Fprintln(in)
	line, _ := out.ReadString('\n')
	if want := "lost true " + ErrLost.Error(); strings.TrimSpace(line) != want {
		t.Errorf("the holder that was stopped says %q; want %q", line, want)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !Held(path) {
		t.Error("the lease of another went with that of the holder that was stopped")
	}
	if context.Cause(l.Context()) != nil || l.Lost() {
		t.Errorf("the new holder lost it: %v", context.Cause(l.Context()))
	}
	if err := l.Close(); err != nil || Held(path) {
		t.Errorf("Close = %v, held %v", err, Held(path))
	}
}

// TestClocksDoNotMatter: a holder whose node lives in another year keeps its
// lease as long as it renews it.
func TestClocksDoNotMatter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	other := quick("n2")
	other.renew = time.Hour // this test does it
	l, err := Acquire(t.Context(), path, other)
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	renewed := make(chan error, 1)
	go func() {
		for at := time.Unix(0, 0); !stop.Load(); at = at.Add(time.Second) {
			if err := os.Chtimes(l.file(), at, at); err != nil {
				renewed <- err
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		renewed <- nil
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := Acquire(ctx, path, quick("n1")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Acquire = %v; want %v", err, context.DeadlineExceeded)
	}
	stop.Store(true)
	if err := errors.Join(<-renewed, l.Close()); err != nil {
		t.Error(err)
	}
}

// TestWaiterThatWasStopped: time in which a waiter did not look is no time in
// which the holder did not renew.
func TestWaiterThatWasStopped(t *testing.T) {
	w := watch{expiry: time.Minute}
	s := seen{token: "n2+b+1+1+r", renewed: time.Unix(1, 0)}
	w.isStale(s, time.Second)
	w.at = w.at.Add(-time.Hour)
	if w.isStale(s, time.Second) {
		t.Error("stale after two looks")
	}
	for range 40 {
		w.at = w.at.Add(-2 * time.Second)
		w.isStale(s, time.Second)
	}
	if !w.isStale(s, time.Second) {
		t.Error("not stale after 40 looks of two seconds")
	}
}

func TestDone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	l, err := Acquire(t.Context(), path, quick("n1"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var asked, waited int
	o := quick("n2")
	o.Done = func() bool { asked++; return asked == 3 }
	o.Waited = func() { waited++ }
	if _, err := Acquire(t.Context(), path, o); !errors.Is(err, ErrDone) || waited != 1 {
		t.Errorf("Acquire = %v, told %d times to wait; want %v, once", err, waited, ErrDone)
	}
}

// TestCrowd: of many that wait for the same work, one does it and the others do
// not even take the lease.
func TestCrowd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	var did, found atomic.Int32
	var wg sync.WaitGroup
	for i := range 256 {
		wg.Go(func() {
			o := quick(fmt.Sprintf("n%d", i))
			o.Done = func() bool { return did.Load() > 0 }
			l, err := Acquire(t.Context(), path, o)
			switch {
			case errors.Is(err, ErrDone):
				found.Add(1)
			case err != nil:
				t.Error(err)
			default:
				time.Sleep(100 * time.Millisecond)
				did.Add(1)
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// Who looked just before it was done may take the lease once more.
	if did.Load() > 8 || did.Load()+found.Load() != 256 {
		t.Errorf("%d did it and %d found it done", did.Load(), found.Load())
	}
}

// TestAcquireFailures: what is in the way is named.
func TestAcquireFailures(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "missing/a"} {
		path := filepath.Join(dir, name)
		if _, err := Acquire(t.Context(), path, quick("n1")); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Acquire(%s) = %v; want an error with the path", path, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, newPrefix+"*")); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

// TestHeldHere checks that only a lease counts that a living process of this node
// renews.
func TestHeldHere(t *testing.T) {
	here, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	held := func(host string) (path, file string, cmd *exec.Cmd) {
		path = filepath.Join(t.TempDir(), "a")
		cmd, _, _, token := holder(t, path, host)
		return path, filepath.Join(path, token), cmd
	}
	path, _, cmd := held(here)
	if !HeldHere(path) {
		t.Error("a process of this node has the lease, and HeldHere is false")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	stopped, file, cmd := held(here)
	long := time.Now().Add(-2 * defaultExpiry)
	if err := errors.Join(cmd.Process.Signal(unix.SIGSTOP), os.Chtimes(file, long, long)); err != nil {
		t.Fatal(err)
	}
	other, _, _ := held("n2")
	for name, path := range map[string]string{"dead": path, "stopped": stopped, "another node's": other, "free": t.TempDir()} {
		if HeldHere(path) {
			t.Errorf("HeldHere is true where the holder is %s", name)
		}
	}
}

// FuzzParseOwner: names in the directory are another's, and no sign that a
// process is dead unless they are whole.
func FuzzParseOwner(f *testing.F) {
	for _, s := range []string{"n+b+1+2+r", "n+b+1+-1+r", "+++1+", "", "n+b+1+99999999999999999999+r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		o := parseOwner(token)
		if o.pid < 0 {
			t.Errorf("parseOwner(%q) = %+v", token, o)
		}
		if o.isDead(owner{host: o.host, pid: 1}) {
			t.Errorf("%q is dead for a process that knows no boot id", token)
		}
	})
}
