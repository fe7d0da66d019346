// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
)

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		name string
		cmd  Cmd
		out  string
		err  string // of the error; empty means success
	}{
		{name: "nothing is inherited", cmd: Cmd{Path: "/usr/bin/env"}, out: ""},
		{name: "environment", cmd: Cmd{Path: "/usr/bin/env", Env: []string{"A=b c"}}, out: "A=b c\n"},
		{name: "directory", cmd: Cmd{Path: "/bin/pwd"}, out: "/\n"},
		{name: "name", cmd: Cmd{Path: "/bin/sh", Name: "x", Args: []string{"-c", "echo $0"}}, out: "x\n"},
		{name: "input", cmd: Cmd{Path: "/bin/cat", Stdin: strings.NewReader("x")}, out: "x"},

		{name: "status", cmd: shell("exit 3"), err: "sh: exit status 3"},
		{name: "last line", cmd: shell("echo one >&2; echo two >&2; exit 1"), err: "sh: two (exit status 1)"},
		{name: "signal", cmd: shell("kill -TERM $$"), err: "sh: signal: terminated"},
		{name: "missing", cmd: Cmd{Path: "/no/such/program"}, err: "run /no/such/program: fork/exec /no/such/program: no such file or directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			tt.cmd.Stdout = &out
			err := Run(t.Context(), tt.cmd)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("Run = %v; want %q", err, tt.err)
				}
				return
			}
			if err != nil || out.String() != tt.out {
				t.Fatalf("Run = %q, %v; want %q", out.String(), err, tt.out)
			}
		})
	}
}

func shell(script string) Cmd { return Cmd{Path: "/bin/sh", Args: []string{"-c", script}} }

func TestRunKeepsTheEndOfStderr(t *testing.T) {
	err := Run(t.Context(), shell("i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1"))
	var ce *Error
	if !errors.As(err, &ce) || len(ce.Stderr) > 8<<10 || !strings.HasPrefix(ce.Stderr, "line ") || !strings.HasSuffix(ce.Stderr, "line 1999") {
		t.Errorf("Run = %v; want the last whole lines", err)
	}
}

func TestRunKeepsTheOrderOfOutput(t *testing.T) {
	var out bytes.Buffer
	cmd := shell("echo 1; echo 2 >&2; echo 3; echo 4 >&2; exit 1")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := Run(t.Context(), cmd); err == nil || err.Error() != "sh: 4 (exit status 1)" || out.String() != "1\n2\n3\n4\n" {
		t.Errorf("Run = %v, wrote %q", err, out.String())
	}
}

// TestRunKillsTheGroup checks that a grandchild that holds the output open does
// not survive the context.
func TestRunKillsTheGroup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	var out bytes.Buffer
	cmd := shell("sleep 60 & sleep 60")
	cmd.Stdout = &out
	err := Run(ctx, cmd)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 3*time.Second {
		t.Errorf("Run = %v after %v; want the deadline at once", err, time.Since(start))
	}
}

// TestRunJoins checks that a program does nothing before it has joined, and nothing at
// all if it cannot.
func TestRunJoins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "joined")
	var out bytes.Buffer
	cmd := Cmd{Path: "/bin/cat", Args: []string{path}, Stdout: &out, Join: func(pid int) error {
		return os.WriteFile(path, fmt.Appendf(nil, "%d", pid), 0o600)
	}}
	var pid int
	if err := Run(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(out.String(), &pid); err != nil || pid == os.Getpid() {
		t.Errorf("the program reads %q; want its number", out.String())
	}
	cmd = shell("echo ran >" + path)
	cmd.Join = func(int) error { return errors.New("no room") }
	err := Run(t.Context(), cmd)
	if text, _ := os.ReadFile(path); err == nil || err.Error() != "no room" || strings.HasPrefix(string(text), "ran") {
		t.Errorf("Run = %v, and the file has %q", err, text)
	}
	cmd = shell("exit 3")
	cmd.Join = func(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }
	if err := Run(t.Context(), cmd); err == nil || err.Error() != "sh: signal: killed" {
		t.Errorf("Run of a program that is killed meanwhile = %v", err)
	}
}

// TestRunWithoutNewPrivileges checks that neither the program nor its children can gain
// privileges, and that the next program can.
func TestRunWithoutNewPrivileges(t *testing.T) {
	for _, want := range []string{"1", "0"} {
		var out bytes.Buffer
		cmd := shell("sh -c 'grep NoNewPrivs /proc/self/status'")
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		cmd.Stdout, cmd.NoNewPrivileges = &out, want == "1"
		if err := Run(t.Context(), cmd); err != nil || out.String() != "NoNewPrivs:\t"+want+"\n" {
			t.Errorf("Run = %q, %v; want %s", out.String(), err, want)
		}
	}
	failing := shell("echo why >&2; exit 3")
	failing.NoNewPrivileges = true
	if err := Run(t.Context(), failing); err == nil || err.Error() != "sh: why (exit status 3)" {
		t.Errorf("Run = %v", err)
	}
}

func TestRunFiles(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := shell("echo through >&3")
	cmd.Files = []*os.File{w}
	if err := errors.Join(Run(t.Context(), cmd), w.Close()); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16)
	n, _ := r.Read(got)
	if string(got[:n]) != "through\n" {
		t.Errorf("descriptor 3 got %q; want %q", got[:n], "through\n")
	}
}

func TestRunIdentity(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	var out bytes.Buffer
	cmd := shell("id -u; id -G; grep -E '^Cap(Eff|Prm)' /proc/self/status")
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.Identity = &identity.User{UID: 4711, GID: 4712, Groups: []uint32{4713}}
	cmd.Stdout = &out
	if err := Run(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	want := "4711\n4712 4713\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
	if out.String() != want {
		t.Errorf("identity = %q; want %q", out.String(), want)
	}
}

// TestStart checks that the program gets what it should and outlives the thread
// that started it.
func TestStart(t *testing.T) {
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	started := make(chan error)
	go func() {
		c := shell(`read x <&3; echo "$$ $(ps -o sid= $$) $HOME$PWD" >&2; grep NoNewPrivs /proc/self/status >&2; grep CapBnd /proc/self/status >&2; echo end >&2`)
		c.Files, c.Stderr, c.Env = []*os.File{r}, said, []string{"HOME=/h"}
		pid, err := Start(c)
		if err == nil {
			t.Cleanup(func() { syscall.Wait4(pid, nil, 0, nil) })
		}
		started <- err
	}() // ends with its thread
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	r.Close()
	time.Sleep(20 * time.Millisecond) // the thread is gone
	w.Close()
	var text []byte
	for deadline := time.Now().Add(10 * time.Second); !bytes.Contains(text, []byte("end")); {
		if text, err = os.ReadFile(said.Name()); err != nil || time.Now().After(deadline) {
			t.Fatalf("the program said %q, %v", text, err)
		}
	}
	var pid, session int
	var where, status, bounding string
	var noNewPrivileges int
	if _, err := fmt.Sscan(string(text), &pid, &session, &where, &status, &noNewPrivileges, &status, &bounding); err != nil || pid != session || where != "/h/" || noNewPrivileges != 1 || os.Geteuid() == 0 && bounding != "0000000000000000" {
		t.Errorf("the program said %q, %v; want a session of its own, no new privileges, $HOME=/h and directory /", text, err)
	}
	if _, err := Start(Cmd{Path: "/no/such"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start of nothing = %v", err)
	}
}

// TestNotStarted checks that only a node without ptrace(2) is said to lack it.
func TestNotStarted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "scope")
	for text, want := range map[string]bool{"0\n": false, "2\n": false, "3\n": true} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := noTracing(file); got != want {
			t.Errorf("noTracing of %q = %v", text, got)
		}
	}
	if noTracing(file + "none") {
		t.Error("a kernel without Yama forbids tracing")
	}
	cmd := Cmd{Path: "/no/such/program", Join: func(int) error { return nil }}
	if err := Run(t.Context(), cmd); !errors.Is(err, os.ErrNotExist) || fault.Hint(err) != "" {
		t.Errorf("Run = %v (%s)", err, fault.Hint(err))
	}
}
