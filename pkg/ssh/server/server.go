// SPDX-License-Identifier: Apache-2.0

// Package server is the SSH server of a step's container on one node: sessions for
// the step's user, and nothing else.
//
// It runs as that user, without any privilege, in the container. One key opens it,
// which the step's containers have. Passwords, agents, X11 and listening for others
// do not exist in it; connections to elsewhere do where the site allows them.
//
// What a session's command leaves running when it ends stays until the step ends,
// as with any server; what runs while its connection is lost is killed. [Server.Stop]
// kills everything that was ever started here.
package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/brolga-hpc/brolga/pkg/process"
	"github.com/brolga-hpc/brolga/pkg/reception"
)

// Settings say what a server is like.
type Settings struct {
	// User is the only name that can log in, ClientKey the only key.
	User      string
	ClientKey ed25519.PublicKey
	// HostKey is the server's own, Banner how it calls itself.
	HostKey ed25519.PrivateKey
	Banner  string
	// Env and Dir are what sessions start with.
	Env []string
	Dir string
	// Connections limits those that have logged in, Sessions those of all
	// connections together.
	Connections, Sessions int
	// LoginTime is how long a client may take to log in.
	LoginTime time.Duration
	// Forwarding lets clients open connections through the server.
	Forwarding bool
}

const (
	// maxStrangers limits connections that have not logged in.
	maxStrangers = 512
	// loginMoment is how long a stranger is safe from newer ones. A login takes a tenth of
	// that on a busy node.
	loginMoment = time.Second
)

// Server is a server.
type Server struct {
	settings Settings
	config   *ssh.ServerConfig
	children *children

	strangers *reception.Reception

	mu          sync.Mutex
	connections int
	sessions    int
}

// New returns a server. Only one may be in a process, whose children it minds.
func New(s Settings) (*Server, error) {
	host, err := ssh.NewSignerFromKey(s.HostKey)
	if err != nil {
		return nil, fmt.Errorf("make the host key: %w", err)
	}
	client, err := ssh.NewPublicKey(s.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("make the client key: %w", err)
	}
	children, err := newChildren()
	if err != nil {
		return nil, err
	}
	config := &ssh.ServerConfig{
		ServerVersion: s.Banner,
		MaxAuthTries:  6,
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() != s.User || !bytes.Equal(key.Marshal(), client.Marshal()) {
				return nil, errors.New("not the key of the step")
			}
			return nil, nil
		},
	}
	config.AddHostKey(host)
	return &Server{settings: s, config: config, children: children, strangers: reception.New(maxStrangers, loginMoment)}, nil
}

// Serve serves connections until the listener is closed.
func (s *Server) Serve(l net.Listener) error {
	for {
		conn, err := s.strangers.Accept(l)
		if err != nil {
			return nil //nolint:nilerr // the listener is closed
		}
		go s.serve(conn)
	}
}

// Stop kills all that sessions have started.
func (s *Server) Stop() { _ = process.KillDescendants(os.Getpid()) } // Slurm or the helper tries again

// known takes a connection from those that have not logged in. It tells whether
// there is room for it among those that have.
func (s *Server) known(conn net.Conn) bool {
	s.strangers.Leave(conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connections == s.settings.Connections {
		return false
	}
	s.connections++
	return true
}

func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	// A failing deadline fails the connection, too.
	_ = conn.SetDeadline(time.Now().Add(s.settings.LoginTime))
	c, channels, requests, err := ssh.NewServerConn(conn, s.config)
	if err != nil {
		s.strangers.Leave(conn)
		return
	}
	if !s.known(conn) {
		return
	}
	defer func() {
		s.mu.Lock()
		s.connections--
		s.mu.Unlock()
	}()
	_ = conn.SetDeadline(time.Time{})
	// Forwarding of ports to clients is asked for here, and refused; keepalives
	// are answered.
	go ssh.DiscardRequests(requests)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for channel := range channels {
		s.open(ctx, c, channel)
	}
}

// open answers a request for a channel.
func (s *Server) open(ctx context.Context, c *ssh.ServerConn, channel ssh.NewChannel) {
	switch channel.ChannelType() {
	case "session":
		if !s.takeSession() {
			// The client is told; there is nothing to do if it is gone.
			_ = channel.Reject(ssh.ResourceShortage, "too many sessions")
			return
		}
		go func() {
			defer s.leaveSession()
			s.session(ctx, c, channel)
		}()
	case "direct-tcpip":
		if !s.settings.Forwarding {
			_ = channel.Reject(ssh.Prohibited, "port forwarding is not allowed on this cluster")
			return
		}
		go forward(ctx, channel)
	default:
		_ = channel.Reject(ssh.UnknownChannelType, "not offered")
	}
}

func (s *Server) takeSession() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions == s.settings.Sessions {
		return false
	}
	s.sessions++
	return true
}

func (s *Server) leaveSession() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions--
}
