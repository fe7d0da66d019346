// SPDX-License-Identifier: Apache-2.0

package reception

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"
)

// fakeListener has connections, or errors, one after the other, and then is closed.
type fakeListener struct {
	net.Listener
	conns []net.Conn
}

func (l *fakeListener) Accept() (net.Conn, error) {
	if len(l.conns) == 0 {
		return nil, net.ErrClosed
	}
	c := l.conns[0]
	l.conns = l.conns[1:]
	if c == nil {
		return nil, errors.New("too many open files")
	}
	return c, nil
}

// fakeConn tells whether it is open.
type fakeConn struct {
	net.Conn
	mu     sync.Mutex
	closed bool
}

func (c *fakeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *fakeConn) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed
}

func accept(t *testing.T, r *Reception, conns ...net.Conn) {
	t.Helper()
	l := &fakeListener{conns: conns}
	for len(l.conns) > 0 {
		if _, err := r.Accept(l); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewerTakesTheOldestPlace(t *testing.T) {
	r := New(2, 0)
	a, b, c := &fakeConn{}, &fakeConn{}, &fakeConn{}
	accept(t, r, a, b)
	r.Leave(a) // it has proved who it is
	d := &fakeConn{}
	accept(t, r, c, d)
	for name, got := range map[string]bool{"a": a.isOpen(), "c": c.isOpen(), "d": d.isOpen()} {
		if !got {
			t.Errorf("%s was closed", name)
		}
	}
	if b.isOpen() {
		t.Error("the oldest stranger is there beside two newer ones")
	}
}

func TestSafeForAMoment(t *testing.T) {
	r := New(1, time.Hour)
	first, second := &fakeConn{}, &fakeConn{}
	accepted := make(chan struct{})
	l := &fakeListener{conns: []net.Conn{first, second}}
	if _, err := r.Accept(l); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = r.Accept(l) // it waits for the first to leave
		close(accepted)
	}()
	select {
	case <-accepted:
		t.Error("a newer one came in")
	case <-time.After(20 * pause):
	}
	if !first.isOpen() {
		t.Error("the first was closed for a newer one")
	}
	r.Leave(first)
	<-accepted
}

// TestLackOfDescriptors checks that a stranger who is not new gives up the descriptor.
func TestLackOfDescriptors(t *testing.T) {
	r := New(9, 0)
	old, next := &fakeConn{}, &fakeConn{}
	accept(t, r, old, nil, next)
	if old.isOpen() || !next.isOpen() {
		t.Errorf("old is open: %v; next is open: %v", old.isOpen(), next.isOpen())
	}
}
