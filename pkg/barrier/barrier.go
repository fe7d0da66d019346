// SPDX-License-Identifier: Apache-2.0

// Package barrier lets the nodes of a step wait for each other: each says when it is
// ready, and goes on when all are.
//
// The nodes are a tree. Each calls its parent over TCP and says that it and all nodes
// below it are ready; when the root has heard that of all its children, it says "go",
// which its children pass on. That is one connection to the parent and at most
// [Config.Fanout] from children, and two messages on each, however many nodes there
// are. Nothing is looked at again and again but whether the parent has started yet.
//
// # Failures
//
// A node that fails says so to its neighbours, they pass it on, and all nodes fail
// at once with its name. A connection that ends too early is the failure of the node
// at its other end. When the time is over, nodes say which of those below them are
// there and which are ready; a node whose parent is silent says it to the next
// ancestor, so that the root knows exactly who is missing, and tells all. Nodes that
// reach nobody name whom they did not reach. A node that has no port to listen on
// fails, and calls its children to tell them (portless.go).
//
// # Who may speak
//
// All nodes know a key that nobody else knows. Both ends of a connection prove that
// they know it (link.go); until then nothing is believed, little is kept, and not for
// long. Who knows the key is believed to be of this step: such a node can make its
// own step fail, or not wait, and nothing else.
package barrier

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/brolga-hpc/brolga/pkg/reception"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// Config is one node's place in a barrier. All nodes must have the same, except for
// Own, Listen and Timeout.
type Config struct {
	// Nodes are all nodes in an order that they agree on, Own is one's own place.
	Nodes []slurm.Node
	Own   int
	// Key is known to these nodes only, 32 bytes.
	Key []byte
	// Fanout is the number of children of a node, at least 1.
	Fanout int
	// Ports are those that nodes listen on.
	Ports Ports
	// Listen are the addresses to listen on; none is all.
	Listen []string
	// Timeout is how long to wait, from [Join] on.
	Timeout time.Duration
}

// Barrier is one node's part in it.
type Barrier struct {
	config    Config
	tree      tree
	id        identity
	strangers *reception.Reception
	listeners []net.Listener

	events chan event
	quit   chan struct{}
	done   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc

	messages, connections atomic.Int64

	// What follows belongs to the goroutine of run.

	ready     bool // this node is
	announced bool // and all below it are, and the parent was told
	up        *link
	unreached error // why it is not there
	below     map[int]*below

	late, reported bool // the time is over; the parent knows who is there
	graceOver      bool
	findParent     context.CancelFunc

	concluded bool
	released  bool // done is going to be closed
	verdict   message
	failure   *Failure

	end                                  time.Time
	deadline, grace, final, hold, silent <-chan time.Time
}

// below is a node that has called.
type below struct {
	*link
	ready    bool // with all nodes below it
	reported bool
	// seen and readyOnes are what it has reported.
	seen, readyOnes set
}

type event struct {
	link    *link
	opened  bool // it is new
	called  bool // by this node
	message message
	err     error

	ready     bool
	failed    *Failure
	unreached error // why no ancestor answers
}

// Join takes part in a barrier, from now on and in the background. The caller
// closes it.
func Join(c Config) *Barrier {
	b := &Barrier{
		strangers: reception.New(maxStrangers, callMoment),
		config:    c,
		tree:      tree{len(c.Nodes), c.Fanout},
		id:        newIdentity(c),
		events:    make(chan event),
		quit:      make(chan struct{}),
		done:      make(chan struct{}),
		below:     map[int]*below{},
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	var err error
	if len(b.tree.children(c.Own)) > 0 {
		b.listeners, err = b.id.listen(c)
	}
	b.end = time.Now().Add(c.Timeout)
	b.deadline = time.After(c.Timeout)
	if c.Own != 0 {
		find, cancel := context.WithCancel(b.ctx)
		b.findParent = cancel
		go b.call(find, []int{b.tree.parent(c.Own)})
		b.silent = time.After(silentTime)
	}
	for _, l := range b.listeners {
		go b.accept(l)
	}
	go b.run()
	if err != nil {
		b.Fail(err.Error(), portHint(err))
		b.callChildren()
	}
	return b
}

// Ready says that this node is ready.
func (b *Barrier) Ready() { b.post(event{ready: true}) }

// Fail says that this node will not be ready, why, and what to do about it.
func (b *Barrier) Fail(reason, hint string) {
	b.post(event{failed: &Failure{Node: b.config.Nodes[b.config.Own].Name, Reason: cut(reason), Hint: cut(hint), own: true}})
}

// Done is closed when it is known whether the barrier opens, and the neighbours
// have been told.
func (b *Barrier) Done() <-chan struct{} { return b.done }

// Err is nil if all nodes are ready, and a [*Failure] otherwise. It is called after
// [Barrier.Done].
func (b *Barrier) Err() error {
	if b.failure == nil {
		return nil
	}
	return b.failure
}

// Own tells whether the failure is this node's.
func (f *Failure) Own() bool { return f.own }

// Close ends this node's part.
func (b *Barrier) Close() {
	close(b.quit)
	b.cancel()
}

// Traffic is what this node has sent: messages, and connections it has had.
func (b *Barrier) Traffic() (messages, connections int64) {
	return b.messages.Load(), b.connections.Load()
}

// post tells run something.
func (b *Barrier) post(e event) {
	select {
	case b.events <- e:
	case <-b.quit:
		if e.opened {
			e.link.conn.Close()
		}
	}
}

// call calls the first of the nodes that answers.
func (b *Barrier) call(ctx context.Context, nodes []int) {
	for ctx.Err() == nil {
		for _, node := range nodes {
			one, cancel := ctx, context.CancelFunc(func() {})
			if len(nodes) > 1 {
				one, cancel = context.WithTimeout(ctx, graceTime/2)
			}
			l, err := b.id.reach(one, b.config, node)
			cancel()
			if err == nil {
				b.post(event{link: l, opened: true, called: true})
				return
			}
			if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
				b.post(event{unreached: err})
			}
		}
	}
}

// run is the only one that decides.
func (b *Barrier) run() {
	for {
		select {
		case e := <-b.events:
			b.handle(e)
		case <-b.deadline:
			b.timeOver()
		case <-b.grace:
			b.graceOver = true
			b.report()
		case <-b.final:
			b.giveUp()
		case <-b.hold:
			b.release()
		case <-b.silent:
			b.listenForParent()
		case <-b.quit:
			b.cleanUp()
			return
		}
	}
}

func (b *Barrier) cleanUp() {
	for _, l := range b.listeners {
		l.Close()
	}
	for _, l := range b.links() {
		l.finish()
		l.conn.Close()
	}
}

// links are the connections there are.
func (b *Barrier) links() []*link {
	var all []*link
	if b.up != nil {
		all = append(all, b.up)
	}
	for _, c := range b.below {
		all = append(all, c.link)
	}
	return all
}

func (b *Barrier) handle(e event) {
	switch {
	case e.opened:
		b.opened(e.link, e.called)
	case e.link != nil && e.err != nil:
		b.ended(e.link)
	case e.link != nil:
		b.told(e.link, e.message)
	case e.ready:
		b.ready = true
		b.announce()
	case e.failed != nil:
		b.conclude(e.failed, nil)
	case e.unreached != nil:
		b.unreached = e.unreached
	}
}

// opened takes up a new connection.
func (b *Barrier) opened(l *link, called bool) {
	_, known := b.below[l.peer]
	up := b.tree.isBelow(b.config.Own, l.peer)
	if up && b.up != nil || !up && (known || !b.tree.isBelow(l.peer, b.config.Own)) {
		l.conn.Close()
		return
	}
	b.connections.Add(1)
	go l.write(writeTime)
	go b.listenTo(l)
	if called {
		b.send(l, newMessage(kindHere))
	}
	if up {
		b.up = l
		if b.final != nil {
			b.final = time.After(b.patience())
		}
	} else {
		b.below[l.peer] = &below{link: l, seen: set{}, readyOnes: set{}}
	}
	if b.concluded {
		b.tell(l)
		b.releaseIfTold()
		return
	}
	b.announce()
	b.report()
	if c := b.below[l.peer]; !up && b.late && c != nil {
		b.send(c.link, newMessage(kindAsk))
	}
}

func (b *Barrier) listenTo(l *link) {
	defer close(l.end)
	for {
		m, err := l.read()
		b.post(event{link: l, message: m, err: err})
		l.release()
		if err != nil {
			return
		}
	}
}

func (b *Barrier) send(l *link, m message) {
	b.messages.Add(1)
	l.send(m)
}

// ended learns that a peer has gone.
func (b *Barrier) ended(l *link) {
	if b.concluded {
		return
	}
	b.conclude(&Failure{
		Node:   b.config.Nodes[l.peer].Name,
		Reason: "it ended before all nodes were ready",
		Hint:   "its helper was killed, or the node or its network has failed; the node's logs tell",
	}, l)
}

// told acts on a message.
func (b *Barrier) told(l *link, m message) {
	if b.concluded {
		return
	}
	c := b.below[l.peer]
	if l == b.up {
		c = nil
	}
	var err error
	switch kind := m.kind(); {
	case kind == kindFailed:
		var f *Failure
		if f, err = b.decode(m); err == nil {
			b.conclude(f, l)
		}
	case kind == kindReady && c != nil:
		c.ready = true
		b.announce()
		b.report()
	case kind == kindLate && c != nil:
		err = b.toldLate(c, m)
	case kind == kindGo && l == b.up && b.announced:
		b.conclude(nil, l)
	case kind == kindAsk && l == b.up:
		b.beLate()
	default:
		err = fmt.Errorf("it says %q when it should not", kind)
	}
	if err != nil {
		b.conclude(&Failure{Node: b.config.Nodes[l.peer].Name, Reason: "internal error: " + err.Error()}, nil)
	}
}

// announce says that this node and all below it are ready, if they are.
func (b *Barrier) announce() {
	if b.concluded || b.announced || !b.ready {
		return
	}
	for _, i := range b.tree.children(b.config.Own) {
		if c := b.below[i]; c == nil || !c.ready {
			return
		}
	}
	switch {
	case b.config.Own == 0:
		b.conclude(nil, nil)
	case b.up != nil && b.up.peer == b.tree.parent(b.config.Own):
		b.announced = true
		b.send(b.up, newMessage(kindReady))
	}
}
