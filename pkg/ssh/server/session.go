// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// grace is how long a command whose client is gone may take to end.
const grace = 2 * time.Second

// maxEnv limits the variables that a client may set.
const maxEnv = 1000

// session is one channel of the type "session" (RFC 4254, section 6).
type session struct {
	server  *Server
	channel ssh.Channel
	env     []string
	pty     *pty
	// started tells that the command, shell or subsystem was chosen: there is only
	// one in a session.
	started bool
	gone    context.Context // ends with the channel

	mu      sync.Mutex
	process *os.Process // once it runs, until it has ended
}

// session serves a channel until its command has ended.
func (s *Server) session(ctx context.Context, c *ssh.ServerConn, channel ssh.NewChannel) {
	ch, requests, err := channel.Accept()
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	x := &session{server: s, channel: ch, env: slices.Clone(s.settings.Env), gone: ctx}
	x.set("SSH_CONNECTION", connection(c))
	var running sync.WaitGroup
	for r := range requests {
		run, ok := x.request(r)
		if r.WantReply {
			_ = r.Reply(ok, nil) // a client that is gone ends the loop
		}
		if run != nil {
			running.Go(run)
		}
	}
	cancel()
	running.Wait()
	x.pty.close()
}

// connection returns SSH_CONNECTION, as sshd sets it: both ends.
func connection(c *ssh.ServerConn) string {
	var all []string
	for _, end := range []net.Addr{c.RemoteAddr(), c.LocalAddr()} {
		host, port, err := net.SplitHostPort(end.String())
		if err != nil {
			return ""
		}
		all = append(all, host, port)
	}
	return strings.Join(all, " ")
}

func (x *session) set(name, value string) {
	x.env = slices.DeleteFunc(x.env, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
	x.env = append(x.env, name+"="+value)
}

func (x *session) getenv(name string) string {
	for _, entry := range x.env {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// request carries out a request. What it returns is to be run once the answer was
// sent.
func (x *session) request(r *ssh.Request) (run func(), ok bool) {
	switch r.Type {
	case "env":
		var v struct{ Name, Value string }
		if ssh.Unmarshal(r.Payload, &v) != nil || x.started || !settable(v.Name, v.Value) || len(x.env) > len(x.server.settings.Env)+maxEnv {
			return nil, false
		}
		x.set(v.Name, v.Value)
		return nil, true
	case "pty-req":
		return nil, x.makePTY(r.Payload)
	case "window-change":
		return nil, x.pty.resize(r.Payload)
	case "signal":
		return nil, x.signal(r.Payload)
	case "shell", "exec", "subsystem":
		return x.choose(r)
	}
	// x11-req, auth-agent-req@openssh.com and what is still to be invented.
	return nil, false
}

// settable tells whether the form of a variable is right. Which ones a client sets
// is its own business: the command that follows could set them, too.
func settable(name, value string) bool {
	return name != "" && !strings.ContainsAny(name, "=\x00") && !strings.Contains(value, "\x00")
}

// choose returns what the session runs.
func (x *session) choose(r *ssh.Request) (run func(), ok bool) {
	var text struct{ Value string }
	if x.started || r.Type != "shell" && ssh.Unmarshal(r.Payload, &text) != nil {
		return nil, false
	}
	if r.Type == "subsystem" {
		if text.Value != "sftp" {
			return nil, false
		}
		x.started = true
		return x.serveFiles, true
	}
	x.started = true
	return func() { x.run(r.Type == "exec", text.Value) }, true
}

// serveFiles speaks sftp. It ends with the channel.
func (x *session) serveFiles() {
	defer x.channel.Close()
	// It would close the channel before the client knows how it went.
	stream := struct {
		io.Reader
		io.WriteCloser
	}{x.channel, unclosed{x.channel}}
	files, err := sftp.NewServer(stream, sftp.WithServerWorkingDirectory(x.server.settings.Dir))
	if err != nil {
		return
	}
	status := uint32(0)
	if err := files.Serve(); err != nil && !errors.Is(err, io.EOF) {
		status = 1
	}
	_ = files.Close() // the files that the client has left open
	x.exit(status)
}

// unclosed is a writer that others may believe to have closed.
type unclosed struct{ io.Writer }

// Close implements io.Closer.
func (unclosed) Close() error { return nil }

func (x *session) exit(status uint32) {
	_, _ = x.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

// run runs a command or a shell and tells the client how it ended.
func (x *session) run(isCommand bool, text string) {
	defer x.channel.Close()
	// The kernel kills the command when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, err := x.command(isCommand, text)
	if err != nil {
		x.say(err)
		x.exit(127) // as a shell says that there is no such command
		return
	}
	streams, err := x.connect(cmd)
	if err != nil {
		x.say(err)
		x.exit(255)
		return
	}
	err = x.server.children.start(cmd)
	streams.closeTheirs()
	if err != nil {
		streams.closeOurs()
		x.say(err)
		x.exit(126) // as a shell says that it cannot be executed
		return
	}
	x.running(cmd.Process)
	ended := make(chan struct{})
	go x.killWhenGone(cmd.Process.Pid, ended)
	copied := streams.copy(x.channel)
	state := x.server.children.wait(cmd)
	x.running(nil)
	close(ended)
	// Like sshd's, a session lasts while something holds its output open.
	select {
	case <-copied:
	case <-x.gone.Done():
	}
	streams.closeOurs()
	x.tell(state)
}

// say tells the client's user why there is no command.
func (x *session) say(err error) {
	end := "\n"
	if x.pty != nil {
		end = "\r\n"
	}
	fmt.Fprintf(x.channel.Stderr(), "brolga: error: %v%s", err, end)
}

func (x *session) running(p *os.Process) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.process = p
}

// killWhenGone ends the command's process group when nobody is there any more
// to see what it does.
func (x *session) killWhenGone(pid int, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-x.gone.Done():
	}
	for _, signal := range []unix.Signal{unix.SIGHUP, unix.SIGTERM} {
		_ = unix.Kill(-pid, signal) // it may have ended just now
	}
	select {
	case <-ended:
	case <-time.After(grace):
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
}

// signals are those that clients can name (RFC 4254, section 6.10).
var signals = map[string]syscall.Signal{
	"ABRT": unix.SIGABRT, "ALRM": unix.SIGALRM, "FPE": unix.SIGFPE, "HUP": unix.SIGHUP, "ILL": unix.SIGILL,
	"INT": unix.SIGINT, "KILL": unix.SIGKILL, "PIPE": unix.SIGPIPE, "QUIT": unix.SIGQUIT, "SEGV": unix.SIGSEGV,
	"TERM": unix.SIGTERM, "USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2,
}

// signal passes a signal to the command's process group.
func (x *session) signal(payload []byte) bool {
	var s struct{ Name string }
	if ssh.Unmarshal(payload, &s) != nil {
		return false
	}
	number, ok := signals[s.Name]
	x.mu.Lock()
	defer x.mu.Unlock()
	return ok && x.process != nil && unix.Kill(-x.process.Pid, number) == nil
}

// tell says how the command ended.
func (x *session) tell(state *os.ProcessState) {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		x.exit(uint32(state.ExitCode()))
		return
	}
	for name, number := range signals {
		if number == status.Signal() {
			_, _ = x.channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
				Signal     string
				Core       bool
				Text, Lang string
			}{name, status.CoreDump(), status.Signal().String(), ""}))
			return
		}
	}
	x.exit(uint32(128 + int(status.Signal())))
}

// command returns what is to be executed: with the shell of SHELL, or /bin/sh, and
// directly where the image has none.
func (x *session) command(isCommand bool, text string) (*exec.Cmd, error) {
	shell := x.shell()
	var args []string
	switch {
	case shell != "" && isCommand:
		args = []string{shell, "-c", text}
	case shell != "":
		args = []string{shell}
	case !isCommand:
		return nil, errors.New("the image has no shell: name a program")
	default:
		var err error
		if args, err = words(text); err != nil {
			return nil, fmt.Errorf("the image has no shell, and %w", err)
		}
	}
	path, err := lookup(args[0], x.getenv("PATH"), x.server.settings.Dir)
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{Path: path, Args: args, Env: x.env, Dir: x.server.settings.Dir}, nil
}

func (x *session) shell() string {
	for _, path := range []string{x.getenv("SHELL"), "/bin/sh"} {
		if strings.HasPrefix(path, "/") && executable(path) {
			return path
		}
	}
	return ""
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && unix.Access(path, unix.X_OK) == nil
}
