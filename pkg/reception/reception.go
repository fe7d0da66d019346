// SPDX-License-Identifier: Apache-2.0

// Package reception accepts connections of peers that have yet to prove who they are.
//
// There is room for a number of them. A newer one takes the place of the oldest, but not
// within the moment that a peer needs for its proof. So a flood of strangers delays a
// peer and does not interrupt it: while there is no room, the kernel queues connections.
package reception

import (
	"errors"
	"net"
	"sync"
	"time"
)

// pause is the time between two looks for room.
const pause = 5 * time.Millisecond

// Reception is room for strangers. Several listeners may share one.
type Reception struct {
	most   int
	moment time.Duration

	mu        sync.Mutex
	strangers []stranger // the oldest first
}

type stranger struct {
	conn net.Conn
	came time.Time
}

// New returns room for so many strangers, each of whom is safe from newer ones for a moment.
func New(most int, moment time.Duration) *Reception {
	return &Reception{most: most, moment: moment}
}

// Accept waits for a connection, which is a stranger's until [Reception.Leave]. A newer
// one may have it closed before that. The error is [net.ErrClosed], of the listener.
func (r *Reception) Accept(l net.Listener) (net.Conn, error) {
	for {
		for !r.hasRoom(r.most) {
			time.Sleep(pause)
		}
		conn, err := l.Accept()
		if err == nil {
			r.enter(conn)
			return conn, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, net.ErrClosed
		}
		// Of this connection only, or for lack of descriptors: a stranger may have one.
		r.hasRoom(1)
		time.Sleep(pause)
	}
}

// Leave makes a connection a stranger's no more: its peer has proved who it is, or it ends.
func (r *Reception) Leave(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range r.strangers {
		if s.conn == conn {
			r.strangers = append(r.strangers[:i:i], r.strangers[i+1:]...)
			return
		}
	}
}

func (r *Reception) enter(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.strangers = append(r.strangers, stranger{conn, time.Now()})
}

// hasRoom reports whether there are fewer strangers than most. If there are not, it
// closes the oldest one, unless that has just come.
func (r *Reception) hasRoom(most int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.strangers) < most {
		return true
	}
	if time.Since(r.strangers[0].came) < r.moment {
		return false
	}
	r.strangers[0].conn.Close()
	r.strangers = r.strangers[1:]
	return true
}
