// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// pair returns the helper's and the server's end.
func pair(t *testing.T) (helper, server *Conn) {
	t.Helper()
	helper, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(theirs.Fd()))
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	return helper, NewConn(fd)
}

func TestSetup(t *testing.T) {
	helper, server := pair(t)
	want := Setup{
		Key: []byte{0, 1, 255}, User: "ada", Nodes: []slurm.Node{{Name: "n1", Address: "192.0.2.1"}}, Own: 0, Site: config.Default().SSH,
		Dir: "/w", Umask: 0o27, Limits: map[string]uint64{"CORE": 1<<64 - 1},
	}
	want.SetEnv([]string{"A=b\nc", "LATIN=\xe9", "BULK=" + strings.Repeat("x", 1<<20)})
	if err := helper.SendSetup(want); err != nil {
		t.Fatal(err)
	}
	got, err := server.ReceiveSetup()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ReceiveSetup = %.200v, %v; want %.200v", got, err, want)
	}
	if env := got.Env(); len(env) != 3 || env[0] != "A=b\nc" || env[1] != "LATIN=\xe9" {
		t.Errorf("Env = %.200q", env)
	}
}

func TestReady(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server func(c *Conn) error
		want   string
	}{
		{"ready", func(c *Conn) error { return c.SendReady(nil) }, ""},
		{"not ready", func(c *Conn) error { return c.SendReady(errors.Join(errors.New("a"), errors.New("b"))) }, "a; b"},
		{"gone", func(c *Conn) error { return c.Close() }, "it has ended without a word"},
		{"silent", func(*Conn) error { return nil }, "it is not ready after 10ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			helper, server := pair(t)
			if err := tt.server(server); err != nil {
				t.Fatal(err)
			}
			err := helper.Ready(10 * time.Millisecond)
			if got := ""; err != nil && err.Error() != tt.want || err == nil && tt.want != got {
				t.Errorf("Ready = %v; want %q", err, tt.want)
			}
		})
	}
}

// TestTasks checks that the server can see a task's end, and that of all tasks.
func TestTasks(t *testing.T) {
	helper, server := pair(t)
	task := exec.Command("cat")
	stdin, err := task.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Start(); err != nil {
		t.Fatal(err)
	}
	if err := helper.SendTask(task.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fd, err := server.ReceiveTask()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ended := func(wait int) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, wait)
		return err == nil && n == 1
	}
	if ended(0) {
		t.Error("a task that runs seems to have ended")
	}
	stdin.Close()
	if !ended(10_000) {
		t.Error("a task that has ended seems to run")
	}
	_ = task.Wait()
	if err := helper.SendTask(task.Process.Pid); err == nil {
		t.Error("a task that is gone can be told of")
	}
	helper.Close()
	if _, err := server.ReceiveTask(); !errors.Is(err, io.EOF) {
		t.Errorf("ReceiveTask after the last = %v; want EOF", err)
	}
}

// TestServerIsGone checks that a user who has ended the server harms no task.
func TestServerIsGone(t *testing.T) {
	helper, server := pair(t)
	server.Close()
	if err := helper.SendTask(os.Getpid()); err != nil {
		t.Errorf("SendTask = %v", err)
	}
}

func TestUnexpected(t *testing.T) {
	helper, server := pair(t)
	if err := helper.SendTask(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if got, err := server.ReceiveSetup(); err == nil || !strings.HasPrefix(err.Error(), "internal error: ") {
		t.Errorf("ReceiveSetup of a task = %+v, %v", got, err)
	}
	if err := helper.SendSetup(Setup{}); err != nil {
		t.Fatal(err)
	}
	if fd, err := server.ReceiveTask(); err == nil {
		t.Errorf("ReceiveTask of a setup = %d", fd)
	}
}
