// SPDX-License-Identifier: Apache-2.0

// Package dial opens connections to the SSH servers of a step.
//
// Which of a row of ports a server has, its identification string says: it comes
// first and unasked (RFC 4253, section 4.2), and is only looked at here, so that the
// connection can be handed to any client. A server may not be there yet: [Dial] goes
// through the ports again until its time is up.
package dial

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstPatience is how long another's server, or a busy one, may be silent; it
	// doubles with each round.
	firstPatience = time.Second
	// firstPause is the time between the first two rounds; it doubles, too, up to
	// longestPause.
	firstPause   = 10 * time.Millisecond
	longestPause = time.Second
)

// Peer is where to look for a node's server.
type Peer struct {
	// Names are what the node is called, Slurm's name first.
	Names   []string `json:"names"`
	Address string   `json:"address"`
	// Ports are those that the server may have, Banner how it calls itself.
	Ports  []int  `json:"ports"`
	Banner string `json:"banner"`
}

// errStranger means that something else has the port.
var errStranger = errors.New("another server has the port")

// Dial connects to the server of a node. Nothing has been read or written when it
// returns.
func Dial(ctx context.Context, peer Peer) (*net.TCPConn, error) {
	pause, patience := firstPause, firstPatience
	var last error
	for {
		for _, port := range peer.Ports {
			conn, err := try(ctx, net.JoinHostPort(peer.Address, strconv.Itoa(port)), peer.Banner, patience)
			if err == nil {
				return conn, nil
			}
			// Of a port that nobody has there is the least to say.
			if ctx.Err() == nil && (last == nil || !errors.Is(err, unix.ECONNREFUSED)) {
				last = err
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to the SSH server on node %s: %w", peer.Names[0], cmp.Or(last, ctx.Err()))
		case <-time.After(pause):
		}
		pause, patience = min(2*pause, longestPause), 2*patience
	}
}

// try connects to one port.
func try(ctx context.Context, address, banner string, patience time.Duration) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	opened, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn, ok := opened.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("internal error: a connection is a %T", opened), opened.Close())
	}
	deadline, _ := ctx.Deadline()
	if err := expect(conn, banner+"\r\n", deadline); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// expect waits for the text to arrive and leaves it there.
func expect(conn *net.TCPConn, text string, deadline time.Time) error {
	if err := conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	seen := make([]byte, len(text))
	for had := 0; ; {
		var n int
		var peekErr error
		err := raw.Read(func(fd uintptr) bool {
			n, _, peekErr = unix.Recvfrom(int(fd), seen, unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return !errors.Is(peekErr, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return err
		case peekErr != nil:
			return os.NewSyscallError("recvfrom", peekErr)
		case string(seen[:n]) != text[:n], n == 0:
			return errStranger
		case n == len(text):
			return conn.SetReadDeadline(time.Time{})
		case n == had:
			// The kernel tells of bytes once, and looking at them takes none.
			time.Sleep(time.Millisecond)
			if time.Now().After(deadline) {
				return os.ErrDeadlineExceeded
			}
		}
		had = n
	}
}

// Pass hands the connection to the process at the other end of a socket, as
// ssh_config(5) has it for ProxyUseFdpass.
func Pass(conn *net.TCPConn, socket int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		// Go's are non-blocking, which the receiver may not expect.
		sendErr = unix.SetNonblock(int(fd), false)
		if sendErr == nil {
			sendErr = unix.Sendmsg(socket, []byte{0}, unix.UnixRights(int(fd)), nil, 0)
		}
	})
	if err := errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("pass the connection on: %w", err)
	}
	return nil
}
