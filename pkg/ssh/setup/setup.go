// SPDX-License-Identifier: Apache-2.0

// Package setup is what the helper and the SSH server of a container say to each
// other, over a socket pair that the server inherits. It links no SSH, because the
// helper does not need any.
//
//	helper → server   setup, with a memory file: a [Setup]
//	server → helper   ready, or error=TEXT
//	helper → server   task, with a descriptor of a task's process (pidfd_open(2));
//	                  once for each, until the helper lets go of the socket
//
// The server ends with the last task that it was told of. It is not a child of any,
// and Slurm, which may not know it, has nobody to kill.
package setup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/seccomp"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// Places in the container, below its own /dev, where no image has anything.
const (
	// Dir is a file system of the user's with what clients need.
	Dir = "/dev/brolga-ssh"
	// ConfigFile is the configuration for OpenSSH's client in it.
	ConfigFile = "config"
	// Program is the program that is client and server.
	Program = "/dev/brolga-ssh-connect"
)

// Descriptors of the server besides the first three.
const (
	// ProgramFD is the program itself, which is executed through it.
	ProgramFD = 3
	// SocketFD is its end of the socket pair.
	SocketFD = 4
)

// Setup is what the server has to know.
type Setup struct {
	// Key is secret; see realm.Realm for the rest of this part.
	Key   []byte
	User  string
	Nodes []slurm.Node
	// Own is the server's place among the nodes.
	Own  int
	Site config.SSH
	// Environment is what sessions start with, entries that end with NUL: not all
	// of it need be UTF-8. Dir is where.
	Environment []byte
	Dir         string
	// Umask and Limits (setrlimit(2), by the end of their names) are the step's.
	Umask  int
	Limits map[string]uint64
	// Filter is put on the server and so on its sessions; nil is none.
	Filter *seccomp.Filter
}

// Env returns the environment as a list.
func (s Setup) Env() []string {
	return strings.Split(strings.TrimSuffix(string(s.Environment), "\x00"), "\x00")
}

// SetEnv sets the environment.
func (s *Setup) SetEnv(env []string) {
	s.Environment = []byte(strings.Join(env, "\x00") + "\x00")
}

// Conn is one end of the socket.
type Conn struct{ fd int }

// NewConn returns an end for a descriptor, which it owns.
func NewConn(fd int) *Conn { return &Conn{fd} }

// Pair returns both ends; the second is to be inherited.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return &Conn{fds[0]}, os.NewFile(uintptr(fds[1]), "socket"), nil
}

// FD returns the descriptor, to be waited for.
func (c *Conn) FD() int { return c.fd }

// Close closes this end.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// SendSetup is for the helper.
func (c *Conn) SendSetup(s Setup) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	fd, err := safefile.Memory("brolga-ssh", text)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return c.send("setup", fd)
}

// Ready waits, for the helper, until the server listens.
func (c *Conn) Ready(patience time.Duration) error {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	}
	if err != nil {
		return fmt.Errorf("wait for the server: %w", err)
	}
	if n == 0 {
		return fmt.Errorf("it is not ready after %v", patience)
	}
	text, fd, err := c.receive()
	if errors.Is(err, io.EOF) {
		return errors.New("it has ended without a word")
	}
	if err != nil {
		return err
	}
	if fd >= 0 {
		unix.Close(fd)
	}
	if text == "ready" {
		return nil
	}
	return errors.New(strings.TrimPrefix(text, "error="))
}

// SendTask tells the server of a process that it has to outlive.
func (c *Conn) SendTask(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open the process of a task: %w", err)
	}
	defer unix.Close(fd)
	err = c.send("task", fd)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil // the user has ended the server
	}
	return err
}

// ReceiveSetup is for the server.
func (c *Conn) ReceiveSetup() (Setup, error) {
	text, fd, err := c.receive()
	if err != nil {
		return Setup{}, err
	}
	f := os.NewFile(uintptr(fd), "setup")
	if f == nil || text != "setup" {
		return Setup{}, fmt.Errorf("internal error: %q for a setup", text)
	}
	defer f.Close()
	var s Setup
	if err := json.NewDecoder(io.NewSectionReader(f, 0, 1<<32)).Decode(&s); err != nil {
		return Setup{}, fmt.Errorf("internal error: setup: %w", err)
	}
	return s, nil
}

// SendReady tells the helper that the server listens, or why it does not.
func (c *Conn) SendReady(err error) error {
	if err != nil {
		return c.send("error="+strings.ReplaceAll(err.Error(), "\n", "; "), -1)
	}
	return c.send("ready", -1)
}

// ReceiveTask returns the descriptor of a task's process, or [io.EOF] when no more
// can come.
func (c *Conn) ReceiveTask() (fd int, err error) {
	text, fd, err := c.receive()
	if err == nil && (text != "task" || fd < 0) {
		return -1, fmt.Errorf("internal error: %q for a task", text)
	}
	return fd, err
}

func (c *Conn) send(text string, fd int) error {
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	for {
		err := unix.Sendmsg(c.fd, []byte(text), rights, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// maxText limits what is said in one packet.
const maxText = 4096

// receive returns a packet and the descriptor that came with it, or -1.
func (c *Conn) receive() (string, int, error) {
	text, control := make([]byte, maxText), make([]byte, unix.CmsgSpace(4))
	for {
		n, controlled, _, _, err := unix.Recvmsg(c.fd, text, control, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECONNRESET), err == nil && n == 0:
			return "", -1, io.EOF
		case err != nil:
			return "", -1, os.NewSyscallError("recvmsg", err)
		}
		fd, err := descriptor(control[:controlled])
		return string(text[:n]), fd, err
	}
}

func descriptor(control []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return -1, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return -1, err
	}
	return fds[0], nil
}
