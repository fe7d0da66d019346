// SPDX-License-Identifier: Apache-2.0

// Package client is an SSH client for containers whose image has none: enough for
// launchers of parallel programs, rsync, scp and a person. It reaches the nodes of
// the step and nothing else.
//
// Options are those of ssh(1). Which key, port and host key are right is known, so
// options about them are taken and mean nothing.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/ssh/dial"
	"github.com/brolga-hpc/brolga/pkg/ssh/files"
)

// Place is where the client is.
type Place struct {
	// Dir has what package files wrote.
	Dir string
	// Version is what -V says.
	Version string
	// Patience is how long to wait for a server.
	Patience time.Duration
}

// exitError is the status for errors of ssh itself (ssh(1), EXIT STATUS).
const exitError = 255

// Main runs the client and returns its exit status.
func Main(args []string, at Place) int {
	o, err := parse(args)
	if err == nil && o.version {
		fmt.Fprintln(os.Stderr, at.Version)
		return 0
	}
	var c *ssh.Client
	if err == nil {
		c, err = login(o, at)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ssh:", err)
		return exitError
	}
	defer c.Close()
	status, err := session(c, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ssh:", err)
	}
	return status
}

// login connects to the host.
func login(o options, at Place) (*ssh.Client, error) {
	peers, signer, err := files.Read(at.Dir)
	if err != nil {
		return nil, err
	}
	peer, ok := peers.Find(o.host)
	if !ok {
		return nil, fmt.Errorf("%s is not a node of this step: Brolga's client reaches no other host", o.host)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(peer.HostKey))
	if err != nil {
		return nil, fmt.Errorf("read the key of %s: %w", o.host, err)
	}
	if o.user == "" {
		o.user = peers.User
	}
	if o.timeout == 0 {
		o.timeout = at.Patience
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	conn, err := dial.Dial(ctx, peer.Peer)
	if err != nil {
		return nil, err
	}
	connection, channels, requests, err := ssh.NewClientConn(conn, o.host, &ssh.ClientConfig{
		User:              o.user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   ssh.FixedHostKey(key),
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("log in to %s as %s: %w", o.host, o.user, err), conn.Close())
	}
	return ssh.NewClient(connection, channels, requests), nil
}

// session runs what was asked for and returns its exit status.
func session(c *ssh.Client, o options) (int, error) {
	if o.noCommand {
		return 0, c.Wait()
	}
	s, err := c.NewSession()
	if err != nil {
		return exitError, err
	}
	defer s.Close()
	s.Stdout, s.Stderr = os.Stdout, os.Stderr
	sendEnv(s, o)
	undo, err := terminal(s, o)
	if err != nil {
		return exitError, err
	}
	defer undo()
	stdin, err := s.StdinPipe()
	if err != nil {
		return exitError, err
	}
	if err := start(s, o); err != nil {
		return exitError, err
	}
	go func() {
		if !o.noInput {
			_, _ = io.Copy(stdin, os.Stdin) // the command may end first
		}
		stdin.Close()
	}()
	return status(s.Wait())
}

func start(s *ssh.Session, o options) error {
	switch {
	case o.subsystem:
		return s.RequestSubsystem(o.command)
	case o.command != "":
		return s.Start(o.command)
	}
	return s.Shell()
}

// status returns the exit status for the end of a session.
func status(err error) (int, error) {
	var exit *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.Signal() == "":
		return exit.ExitStatus(), nil
	case errors.As(err, &exit):
		return exitError, fmt.Errorf("the command was ended by signal %s", exit.Signal())
	case errors.As(err, &missing):
		return exitError, errors.New("the connection was lost")
	}
	return exitError, err
}

// sendEnv passes the variables of SendEnv, which are patterns, and SetEnv.
func sendEnv(s *ssh.Session, o options) {
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		for _, pattern := range o.send {
			if ok, _ := path.Match(pattern, name); ok {
				_ = s.Setenv(name, value) // a server may refuse any
			}
		}
	}
	for _, entry := range o.set {
		name, value, _ := strings.Cut(entry, "=")
		_ = s.Setenv(name, value)
	}
}

// terminal asks for one where ssh(1) does, and makes the own one raw; undo sets that
// right.
func terminal(s *ssh.Session, o options) (undo func(), err error) {
	undo = func() {}
	before, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	isTerminal := err == nil
	wanted := o.terminal > 1 || isTerminal && (o.terminal > 0 || o.terminal == 0 && o.command == "")
	if !wanted || o.subsystem {
		return undo, nil
	}
	columns, rows := size()
	if err := s.RequestPty(os.Getenv("TERM"), rows, columns, ssh.TerminalModes{}); err != nil {
		return undo, fmt.Errorf("get a terminal: %w", err)
	}
	if !isTerminal {
		return undo, nil
	}
	raw := *before // cfmakeraw(3)
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, &raw); err != nil {
		return undo, fmt.Errorf("set up the terminal: %w", err)
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	go func() {
		for range resized {
			columns, rows := size()
			_ = s.WindowChange(rows, columns)
		}
	}()
	return func() { _ = unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, before) }, nil
}

// size returns the size of the terminal, or the usual one.
func size() (columns, rows int) {
	if w, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ); err == nil && w.Col > 0 {
		return int(w.Col), int(w.Row)
	}
	return 80, 24
}
