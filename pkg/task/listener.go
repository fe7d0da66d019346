// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// Listener is the helper's end of the socket pair whose other end the tasks of
// the step share. Each task sends one hello and takes one answer; answers are
// alike, so it does not matter which task takes which.
type Listener struct{ socket int }

// Listen returns a listener on the socket, which it owns.
func Listen(socket int) *Listener { return &Listener{socket} }

// Hello is what a task says of itself. The receiver closes the files.
type Hello struct {
	// Namespace is the task's mount namespace, Cwd its working directory
	// (O_PATH), both from before it joins the container.
	Namespace, Cwd *os.File
	// PID is the task's process, as the kernel says, or 0.
	PID int
	// Env are the variables of the task that have to do with PMIx.
	Env []string
	// Reply is where a task waits for an answer that has come to its end in the
	// container, a pipe. Such a message has nothing else but PID, and comes from a
	// process that the user may have changed.
	Reply *os.File
}

// Close releases the descriptors but Reply.
func (h *Hello) Close() error {
	if h.Reply != nil {
		return nil
	}
	return errors.Join(h.Namespace.Close(), h.Cwd.Close())
}

// Next waits for the next hello. It returns [io.EOF] when no task can come any
// more: all have got their answer or are dead.
func (l *Listener) Next() (*Hello, error) {
	data, control := make([]byte, helloLimit), make([]byte, unix.CmsgSpace(2*4)+unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, controlled, _, _, err := unix.Recvmsg(l.socket, data, control, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("receive from a task: %w", err)
		case n == 0:
			return nil, io.EOF
		}
		return parseHello(data[:n], control[:controlled])
	}
}

// helloLimit is the size in bytes of the longest hello: HELLO_MAX of the shim.
const helloLimit = 16384

func parseHello(data, control []byte) (*Hello, error) {
	records, err := wire.Unmarshal(data)
	if err != nil {
		return nil, fmt.Errorf("internal error: hello: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("internal error: hello: %w", err)
	}
	var hello Hello
	done := false
	for _, r := range records {
		if r.Key == "env" {
			hello.Env = append(hello.Env, r.Value)
		}
		done = done || r.Key == "done"
	}
	var fds []int
	for _, m := range messages {
		if m.Header.Type == unix.SCM_CREDENTIALS {
			if who, err := unix.ParseUnixCredentials(&m); err == nil {
				hello.PID = int(who.Pid)
			}
			continue
		}
		if fds, err = unix.ParseUnixRights(&m); err != nil {
			return nil, fmt.Errorf("internal error: hello: %w", err)
		}
	}
	if done {
		return &hello, hello.takeReply(fds)
	}
	if len(fds) == 0 {
		return nil, errors.New("internal error: hello without descriptors")
	}
	if len(fds) != 2 {
		return nil, fmt.Errorf("internal error: hello with %d descriptors", len(fds))
	}
	hello.Namespace = os.NewFile(uintptr(fds[0]), "the task's mount namespace")
	hello.Cwd = os.NewFile(uintptr(fds[1]), "the task's working directory")
	return &hello, nil
}

// takeReply takes the descriptor of a task that has ended. What is no pipe is
// refused: root writes to it.
func (h *Hello) takeReply(fds []int) error {
	var st unix.Stat_t
	if len(fds) == 1 && unix.Fstat(fds[0], &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		h.Reply = os.NewFile(uintptr(fds[0]), "the task's pipe")
		return nil
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return errors.New("internal error: the end of a task without a pipe")
}

// Answer is what each task gets.
type Answer struct {
	text []byte
	fds  []int
}

// Good returns the answer that lets tasks join the container and follow the
// plan.
func Good(c *container.Container, plan []wire.Record) (*Answer, error) {
	data, err := wire.Marshal(plan)
	if err != nil {
		return nil, err
	}
	fd, err := safefile.Memory("brolga-plan", data)
	if err != nil {
		return nil, err
	}
	records, fds := []wire.Record{{Key: "ready", Value: "1"}}, []int{int(c.Namespace.Fd()), fd}
	for _, ns := range c.Others {
		records = append(records, wire.Record{Key: "namespace", Value: ns.Kind})
		fds = append(fds, int(ns.File.Fd()))
	}
	text, err := wire.Marshal(records)
	return &Answer{text, fds}, err
}

// errorLimit is the length in bytes to which texts for tasks are cut: the shim
// receives into a fixed buffer.
const errorLimit = 3000

// Bad returns the answer that makes tasks fail with the error.
func Bad(err error) *Answer {
	records := []wire.Record{{Key: "error", Value: cut(fault.Line(err))}}
	if hint := fault.Hint(err); hint != "" {
		records = append(records, wire.Record{Key: "hint", Value: cut(hint)})
	}
	text, err := wire.Marshal(records)
	if err != nil {
		text = []byte("error=internal error: unprintable error\x00")
	}
	return &Answer{text: text}
}

func cut(text string) string {
	if len(text) > errorLimit {
		return text[:errorLimit] + "..."
	}
	return text
}

// Send answers one task. A task that died meanwhile is no error.
func (l *Listener) Send(a *Answer) error {
	var rights []byte
	if len(a.fds) > 0 {
		rights = unix.UnixRights(a.fds...)
	}
	for {
		err := unix.Sendmsg(l.socket, a.text, rights, nil, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil, errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			return nil
		}
		return fmt.Errorf("answer a task: %w", err)
	}
}
