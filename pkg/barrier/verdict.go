// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"context"
	"slices"
	"time"
)

const (
	// holdTime is how long a failure is held for nodes that have not called yet: they
	// would learn of it from nobody else. Slurm starts the nodes of a step in less.
	holdTime = 10 * time.Second
	// lingerTime is for peers to read what they were sent last.
	lingerTime = time.Second
)

// conclude ends the waiting: failure is nil if all are ready. Who has said so needs
// not be told.
func (b *Barrier) conclude(failure *Failure, source *link) {
	if b.concluded {
		return
	}
	b.concluded, b.failure, b.verdict = true, failure, newMessage(kindGo)
	if failure != nil {
		b.verdict = b.encode(failure)
		b.hold = time.After(min(holdTime, time.Until(b.end)))
	}
	for _, l := range b.links() {
		if l == source || (failure == nil && l == b.up) {
			l.finish()
			continue
		}
		b.tell(l)
	}
	b.releaseIfTold()
}

func (b *Barrier) tell(l *link) {
	b.send(l, b.verdict)
	l.finish()
}

// releaseIfTold lets the caller go on if all neighbours know. With all nodes ready
// they are all there; if the time is over, who is not will not come.
func (b *Barrier) releaseIfTold() {
	if b.failure != nil && b.failure.Node != "" {
		if b.config.Own != 0 && b.up == nil {
			return
		}
		for _, i := range b.tree.children(b.config.Own) {
			if b.below[i] == nil {
				return
			}
		}
	}
	b.release()
}

// release lets the caller go on when peers have what they were sent.
func (b *Barrier) release() {
	if b.released {
		return
	}
	b.released = true
	links, failed := slices.Clone(b.links()), b.failure != nil
	go func() {
		linger, cancel := context.WithTimeout(b.ctx, lingerTime)
		defer cancel()
		for _, l := range links {
			select {
			case <-l.done:
			case <-linger.Done():
			}
			if !failed {
				continue
			}
			// A connection that is closed before all of it was read is reset, and what
			// was sent may be lost.
			select {
			case <-l.end:
			case <-linger.Done():
			}
		}
		close(b.done)
	}()
}
