// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// candidates is the number of ports that a node may listen on. A node takes the
// first that is free, callers try them all: who does not know the key cannot tell
// which they are, nor answer on them. So nodes may share an address, steps a node,
// and a port that is taken is no obstacle.
const candidates = 8

// Ports is a range of TCP ports, both ends included.
type Ports struct{ First, Last int }

// ports returns the candidates of a node.
func (id identity) ports(r Ports, node int) []int {
	var all []int
	for i := range candidates {
		n := binary.BigEndian.Uint64(id.mac("port", []int{node, i}))
		all = append(all, r.First+int(n%uint64(r.Last-r.First+1)))
	}
	return all
}

// listen opens the first free port of the node, on all addresses or on those given.
func (id identity) listen(c Config) ([]net.Listener, error) {
	for _, port := range id.ports(c.Ports, c.Own) {
		all, err := listenOn(c.Listen, port)
		if err == nil {
			return all, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listen for other nodes: %w", err)
		}
	}
	return nil, fmt.Errorf("listen for other nodes: %w", takenError(c.Ports))
}

func listenOn(addresses []string, port int) ([]net.Listener, error) {
	if len(addresses) == 0 {
		addresses = []string{""}
	}
	var all []net.Listener
	for _, address := range addresses {
		l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if err != nil {
			for _, open := range all {
				open.Close()
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// Times of a connection.
const (
	// handshakeTime is enough for three messages of a hundred bytes, and short for
	// someone who sends nothing.
	handshakeTime = 5 * time.Second
	// stagger is how long one candidate is tried before the next is tried, too.
	stagger = 200 * time.Millisecond
	// firstPause and lastPause are between two rounds: the other node may not have
	// started yet.
	firstPause = 5 * time.Millisecond
	lastPause  = 250 * time.Millisecond
	writeTime  = 10 * time.Second
)

// keepAlive finds a node that has lost its power while nobody says anything.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}

// reach calls a node until it answers, or the context ends.
func (id identity) reach(ctx context.Context, c Config, node int) (*link, error) {
	var last error
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		l, err := id.round(ctx, c, node)
		if err == nil {
			return l, nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return nil, last
		case <-time.After(pause):
		}
	}
}

type reached struct {
	link *link
	err  error
}

// round tries all candidates of a node, and returns the first that proves to be it.
func (id identity) round(ctx context.Context, c Config, node int) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime+candidates*stagger)
	defer cancel()
	results := make(chan reached)
	var wg sync.WaitGroup
	defer func() { // whoever comes too late goes again
		cancel()
		go func() { wg.Wait(); close(results) }()
		for r := range results {
			if r.link != nil {
				r.link.conn.Close()
			}
		}
	}()
	last, running := error(nil), 0
	for _, port := range id.ports(c.Ports, node) {
		wg.Add(1)
		running++
		go func() {
			defer wg.Done()
			l, err := id.dial(ctx, net.JoinHostPort(c.Nodes[node].Address, strconv.Itoa(port)), node)
			results <- reached{l, err}
		}()
		select {
		case r := <-results:
			if r.err == nil {
				return r.link, nil
			}
			last = r.err
			running--
		case <-time.After(stagger):
		}
	}
	for ; running > 0; running-- {
		r := <-results
		if r.err == nil {
			return r.link, nil
		}
		last = r.err
	}
	return nil, last
}

func (id identity) dial(ctx context.Context, address string, node int) (*link, error) {
	d := net.Dialer{Timeout: handshakeTime, KeepAliveConfig: keepAlive}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	l, err := shake(conn, func() (*link, error) { return id.call(conn, node) })
	return l, err
}

// shake does the beginning of a connection in the time that there is for it. The
// connection is closed if that fails.
func shake(conn net.Conn, f func() (*link, error)) (*link, error) {
	err := conn.SetDeadline(time.Now().Add(handshakeTime))
	var l *link
	if err == nil {
		l, err = f()
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

const (
	// maxStrangers limits connections that may be in their beginning.
	maxStrangers = 512
	// callMoment is how long a stranger is safe from newer ones. A node's call takes
	// milliseconds.
	callMoment = 250 * time.Millisecond
)

// accept lets in who proves to be of this step.
func (b *Barrier) accept(l net.Listener) {
	for {
		conn, err := b.strangers.Accept(l)
		if err != nil { // the listener is closed
			return
		}
		go func() {
			link, err := shake(conn, func() (*link, error) { return b.id.answer(conn) })
			b.strangers.Leave(conn)
			if err != nil {
				return
			}
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetKeepAliveConfig(keepAlive) // best effort
			}
			b.post(event{link: link, opened: true})
		}()
	}
}
