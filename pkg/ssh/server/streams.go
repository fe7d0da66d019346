// SPDX-License-Identifier: Apache-2.0

package server

import (
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// streams are what a command reads and writes: pipes, or a terminal.
type streams struct {
	// theirs are the command's ends.
	theirs []*os.File
	// in is our end of its input, out and err of its output; err is nil where that
	// is a terminal.
	in, out, err *os.File
	isTerminal   bool
}

// connect gives the command its streams. Each command leads a session, as those of
// sshd do.
func (x *session) connect(cmd *exec.Cmd) (*streams, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if x.pty != nil {
		cmd.SysProcAttr.Setctty = true
		cmd.Stdin, cmd.Stdout, cmd.Stderr = x.pty.terminal, x.pty.terminal, x.pty.terminal
		return &streams{theirs: []*os.File{x.pty.terminal}, in: x.pty.master, out: x.pty.master, isTerminal: true}, nil
	}
	s := &streams{}
	var stdin, stdout, stderr *os.File
	for _, p := range []struct{ read, write **os.File }{{&stdin, &s.in}, {&s.out, &stdout}, {&s.err, &stderr}} {
		var err error
		if *p.read, *p.write, err = os.Pipe(); err != nil {
			s.theirs = []*os.File{stdin, stdout, stderr}
			s.closeTheirs()
			s.closeOurs()
			return nil, err
		}
	}
	s.theirs = []*os.File{stdin, stdout, stderr}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	return s, nil
}

// closeTheirs closes what the command has by now.
func (s *streams) closeTheirs() {
	for _, f := range s.theirs {
		f.Close() // of a nil file that is an error, too
	}
}

func (s *streams) closeOurs() {
	for _, f := range []*os.File{s.in, s.out, s.err} {
		f.Close()
	}
}

// copy copies between the command and the channel. The result is closed when
// nobody writes to the command's output any more.
func (s *streams) copy(channel ssh.Channel) <-chan struct{} {
	go func() {
		_, _ = io.Copy(s.in, channel) // the command may end without reading
		if !s.isTerminal {
			s.in.Close()
		}
	}()
	var outputs sync.WaitGroup
	outputs.Go(func() {
		_, _ = io.Copy(channel, s.out) // the client may go; a terminal ends with EIO
		if s.isTerminal {
			return
		}
		s.out.Close() // who writes to nobody shall know
	})
	if s.err != nil {
		outputs.Go(func() {
			_, _ = io.Copy(channel.Stderr(), s.err)
			s.err.Close()
		})
	}
	done := make(chan struct{})
	go func() {
		outputs.Wait()
		close(done)
	}()
	return done
}
