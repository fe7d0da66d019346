// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/brolga-hpc/brolga/pkg/wire"
)

// graceTime is for each level of nodes to say who is there when the time is over.
const graceTime = time.Second

// timeOver happens once.
func (b *Barrier) timeOver() {
	if b.concluded {
		return
	}
	b.final = time.After(b.patience())
	if b.config.Own != 0 && b.up == nil {
		b.final = time.After(2 * graceTime) // an ancestor that is there answers at once
		b.findParent()
		go b.call(b.ctx, b.tree.ancestors(b.config.Own))
	}
	b.beLate()
	b.report()
}

// patience is how long this node waits for others to decide when the time is over:
// the root needs the longest, and its answer comes back the same way.
func (b *Barrier) patience() time.Duration { return time.Duration(2*b.tree.height(0)+2) * graceTime }

// beLate asks who is there.
func (b *Barrier) beLate() {
	if b.late {
		return
	}
	b.late = true
	b.grace = time.After(time.Duration(b.tree.height(b.config.Own)) * graceTime)
	for _, c := range b.below {
		if !c.ready {
			b.send(c.link, newMessage(kindAsk))
		}
	}
	b.report()
}

// report says who is there and who is ready, if the time is over and all have said
// so who can. The root decides.
func (b *Barrier) report() {
	if b.concluded || !b.late || b.reported || (!b.graceOver && b.expectsReports()) {
		return
	}
	seen, ready := b.standing()
	if b.config.Own == 0 {
		b.conclude(b.missing(seen, ready, set{}), nil)
		return
	}
	if b.up != nil {
		b.reported = true
		b.send(b.up, newMessage(kindLate, wire.Record{Key: "seen", Value: seen.text()}, wire.Record{Key: "ready", Value: ready.text()}))
	}
}

// expectsReports tells whether somebody below may still say something.
func (b *Barrier) expectsReports() bool {
	for _, c := range b.below {
		if !c.ready && !c.reported {
			return true
		}
	}
	return slices.ContainsFunc(b.tree.children(b.config.Own), b.callsLater)
}

// callsLater tells whether a node below this one, or one below a node that is
// silent, may still call this one because its time is over.
func (b *Barrier) callsLater(i int) bool {
	if b.below[i] != nil {
		return false
	}
	return slices.ContainsFunc(b.tree.children(i), func(j int) bool { return b.below[j] == nil || b.callsLater(j) })
}

func (b *Barrier) toldLate(c *below, m message) error {
	seen, err1 := b.tree.parseSet(m.get("seen"))
	ready, err2 := b.tree.parseSet(m.get("ready"))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for _, nodes := range []set{seen, ready} {
		for i := range nodes {
			if i != c.peer && !b.tree.isBelow(i, c.peer) {
				return fmt.Errorf("it speaks of node %d, which is not below it", i)
			}
		}
	}
	c.reported, c.seen, c.readyOnes = true, seen, ready
	b.beLate()
	b.report()
	return nil
}

// standing returns the nodes of this part of the tree that are there, and those of
// them that are ready.
func (b *Barrier) standing() (seen, ready set) {
	seen, ready = set{b.config.Own: true}, set{}
	if b.ready {
		ready[b.config.Own] = true
	}
	for i, c := range b.below {
		seen[i] = true
		seen.add(c.seen)
		ready.add(c.readyOnes)
		if !c.ready {
			continue
		}
		for j := i; j < b.tree.size; j++ {
			if j == i || b.tree.isBelow(j, i) {
				seen[j], ready[j] = true, true
			}
		}
	}
	return seen, ready
}

// missing makes the failure of a time that is over; others are nodes elsewhere in
// the tree that were not reached.
func (b *Barrier) missing(seen, ready, others set) *Failure {
	silent, unready := set{}, set{}
	silent.add(others)
	for i := range b.tree.size {
		switch {
		case i != b.config.Own && !b.tree.isBelow(i, b.config.Own):
		case !seen[i]:
			silent[i] = true
		case !ready[i]:
			unready[i] = true
		}
	}
	return &Failure{Silent: b.names(silent), Unready: b.names(unready), After: b.config.Timeout}
}

// giveUp decides alone, because nobody else has.
func (b *Barrier) giveUp() {
	if b.concluded {
		return
	}
	seen, ready := b.standing()
	others := set{}
	switch {
	case b.config.Own == 0:
	case b.up != nil:
		others[b.up.peer] = true
	default:
		for _, i := range b.tree.ancestors(b.config.Own) {
			others[i] = true
		}
	}
	f := b.missing(seen, ready, others)
	if b.up == nil && b.unreached != nil {
		f.Reason = b.unreached.Error()
	}
	b.conclude(f, nil)
}
