// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"errors"
	"fmt"
	"time"
)

// A node whose ports are all taken cannot be called, so that its children would wait
// for it until the time is over. It calls them instead, to tell them why. Children
// that have none themselves do not listen, as nobody calls them; they begin to when
// their parent does not answer.

// silentTime is how long a node waits for its parent's answer before it listens: more
// than the nodes of a step need to start, and less than [holdTime].
const silentTime = time.Second

// takenError means that a node has found no free port.
type takenError Ports

func (e takenError) Error() string {
	return fmt.Sprintf("no port that it may have in %d-%d is free", e.First, e.Last)
}

// portHint says what to do about an error of listen.
func portHint(err error) string {
	if !errors.As(err, new(takenError)) {
		return ""
	}
	return "other programs on the node listen there; the administrator ends them or widens sync.ports of the site configuration"
}

// callChildren tells the children of a node that nobody can call that it has failed.
func (b *Barrier) callChildren() {
	for _, child := range b.tree.children(b.config.Own) {
		go b.call(b.ctx, []int{child})
	}
}

// listenForParent lets the parent call, which has not answered. Without a port this
// node waits on, as it did.
func (b *Barrier) listenForParent() {
	if b.up != nil || len(b.tree.children(b.config.Own)) > 0 {
		return
	}
	var err error
	if b.listeners, err = b.id.listen(b.config); err != nil {
		return
	}
	for _, l := range b.listeners {
		go b.accept(l)
	}
}
