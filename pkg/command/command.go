// SPDX-License-Identifier: Apache-2.0

// Package command runs an external program and waits for it.
//
// What the program gets is said explicitly: arguments, environment, identity,
// descriptors. Nothing is taken from this process, and no shell is involved.
// The program leads its own process group and is killed, with all of that group,
// when the context ends; the kernel kills it, or tells it to end, when the thread
// that started it dies. Its standard error is kept, up to a bound, for the error message.
//
// This is the only package that starts programs.
package command

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/identity"
)

// Cmd says what to run. Path and Env are used as they are.
type Cmd struct {
	Path string   // absolute
	Name string   // the program's name as it sees it; "" is Path
	Args []string // without the program's name
	// Title is the program's name in errors; "" is the base name of Path.
	Title string
	Env   []string // nil is an empty environment
	Dir   string   // "" is the root directory

	// Identity is whom the program runs as; nil is the caller. Its capabilities
	// go with uid 0.
	Identity *identity.User
	// Ambient are capabilities that a program which runs as another user keeps
	// (capabilities(7)); what it executes has them, too, unless it gives them up.
	Ambient []uintptr

	Stdin  io.Reader
	Stdout io.Writer
	// Stderr, if set, gets the standard error as it comes; its end is kept for
	// [Error] in any case. If it is Stdout, too, the order of lines is kept.
	Stderr io.Writer
	// Files become descriptors 3, 4 and so on.
	Files []*os.File

	// Join, if set, is called with the number of the process before it executes its
	// first instruction, in the thread that starts it. An error ends it.
	Join func(pid int) error

	// Before, if set, is called by [Start] in the thread that starts the program, which
	// nothing else runs in after that. An error is that of Start.
	Before func() error

	// NoNewPrivileges keeps the program, and all that it starts, from gaining privileges
	// by a setuid program or a file with capabilities. It starts in another thread
	// than the caller's: the caller may have no namespaces of its own.
	NoNewPrivileges bool

	// TidiesUp says that the program ends by SIGTERM and removes first what it
	// has not finished. It gets that signal, not SIGKILL, when this process dies.
	TidiesUp bool
}

// credential returns what the kernel is told, or nil: a process without privilege,
// which root of a user namespace is as far as groups go, can only be itself and
// may not even say so.
func credential(id *identity.User) *syscall.Credential {
	switch {
	case id == nil, os.Geteuid() != 0 && uint32(os.Geteuid()) == id.UID, isCaller(id):
		return nil
	}
	return &syscall.Credential{Uid: id.UID, Gid: id.GID, Groups: id.Groups}
}

// isCaller tells whether the identity is that of this process.
func isCaller(id *identity.User) bool {
	if uint32(os.Geteuid()) != id.UID || uint32(os.Getegid()) != id.GID {
		return false
	}
	groups, err := os.Getgroups()
	return err == nil && slices.EqualFunc(groups, id.Groups, func(a int, b uint32) bool { return uint32(a) == b })
}

func (c Cmd) title() string { return cmp.Or(c.Title, filepath.Base(c.Path)) }

// Error is the failure of a program that was started.
type Error struct {
	Program string // base name
	State   string // such as "exit status 1" or "signal: killed"
	Code    int    // exit status, -1 after a signal
	Stderr  string // the last part of what the program wrote, trimmed
}

// Error names the program and the last line it wrote.
func (e *Error) Error() string {
	last := e.Stderr[strings.LastIndexByte(e.Stderr, '\n')+1:]
	if last == "" {
		return fmt.Sprintf("%s: %s", e.Program, e.State)
	}
	return fmt.Sprintf("%s: %s (%s)", e.Program, last, e.State)
}

// Run runs c and waits for its end. A program that failed gives an [*Error]; a
// context that ended gives its cause.
//
// Run starts the program from the calling thread, so it gets that thread's
// namespaces, and keeps the goroutine on it, since the program would be killed
// if the thread ended. [Cmd.NoNewPrivileges] is the exception.
func Run(ctx context.Context, c Cmd) error {
	if c.NoNewPrivileges {
		ended := make(chan error, 1)
		go func() { ended <- runWithoutNewPrivileges(ctx, c) }()
		return <-ended
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return run(ctx, c)
}

// runWithoutNewPrivileges is for a goroutine that does nothing else: the thread cannot
// be used again, and ends with the goroutine.
func runWithoutNewPrivileges(ctx context.Context, c Cmd) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("run %s: %w", c.Path, err)
	}
	return run(ctx, c)
}

func run(ctx context.Context, c Cmd) error {
	tail := &tail{max: 8 << 10}
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	if c.Name != "" {
		cmd.Args[0] = c.Name
	}
	cmd.Env = append([]string{}, c.Env...) // nil would be the caller's
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, tail
	if c.Stderr != nil {
		cmd.Stderr = io.MultiWriter(tail, c.Stderr)
	}
	if c.Stdout != nil && c.Stdout == c.Stderr {
		cmd.Stdout = cmd.Stderr
	}
	cmd.ExtraFiles = c.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.TidiesUp {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	}
	cmd.SysProcAttr.Credential = credential(c.Identity)
	cmd.SysProcAttr.AmbientCaps = c.Ambient
	cmd.SysProcAttr.Ptrace = c.Join != nil // it stops at its execve(2)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second

	err := withoutLimit(cmd.Start)
	if err == nil && c.TidiesUp {
		defer noteTidy(cmd.Process.Pid)()
	}
	if err == nil && c.Join != nil {
		if err := join(cmd.Process.Pid, c.Join); err != nil {
			_ = cmd.Cancel()
			_ = cmd.Wait() // it was killed
			return err
		}
	}
	if err == nil {
		err = cmd.Wait()
	}
	if ctx.Err() != nil {
		return fmt.Errorf("run %s: %w", c.title(), context.Cause(ctx))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &Error{
			Program: c.title(),
			State:   exit.ProcessState.String(),
			Code:    exit.ExitCode(),
			Stderr:  strings.TrimSpace(string(tail.buf)),
		}
	}
	if err != nil {
		return notStarted(c, err)
	}
	return nil
}

// Start starts c and does not wait for it. The program leads a session of its
// own, outlives this process and is not killed by anybody here. Its standard
// input and output are empty; Stderr must be a file, because nobody would copy
// from a pipe in the end. It gains no privileges from programs it executes, and has an
// empty bounding set.
func Start(c Cmd) (pid int, err error) {
	runtime.LockOSThread() // not unlocked: the thread keeps no_new_privs and ends
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("run %s: %w", c.Path, err)
	}
	// The first number that the kernel does not know gives EINVAL. Without the
	// privilege there is nothing to be lost.
	for capability := uintptr(0); os.Geteuid() == 0 && unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0) == nil; capability++ {
	}
	if c.Before != nil {
		if err := c.Before(); err != nil {
			return 0, err
		}
	}
	cmd := &exec.Cmd{
		Path: c.Path, Args: append([]string{cmp.Or(c.Name, c.Path)}, c.Args...), Env: append([]string{}, c.Env...), Dir: "/",
		Stderr: c.Stderr, ExtraFiles: c.Files, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	cmd.SysProcAttr.Credential = credential(c.Identity)
	cmd.SysProcAttr.Ptrace = c.Join != nil
	if err := withoutLimit(cmd.Start); err != nil {
		return 0, notStarted(c, err)
	}
	if c.Join != nil {
		if err := join(cmd.Process.Pid, c.Join); err != nil {
			return 0, errors.Join(err, cmd.Process.Kill())
		}
	}
	return cmd.Process.Pid, nil
}

// tail keeps the last max bytes written to it, from the start of a line where
// there is one.
type tail struct {
	max int
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append([]byte{}, t.buf[over:]...)
		if i := bytes.IndexByte(t.buf, '\n'); i >= 0 {
			t.buf = t.buf[i+1:]
		}
	}
	return len(p), nil
}
