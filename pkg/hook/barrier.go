// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"

	"github.com/brolga-hpc/brolga/pkg/request"
)

// BarrierHook is a hook that holds the tasks back until other nodes are ready, too. The
// container is complete then, with all that other hooks have started in it.
type BarrierHook interface {
	Hook
	// Begin is called before anything is done for the container, and only starts
	// what goes on beside that.
	Begin(r request.Request) Barrier
}

// Barrier is the wait of one step on this node.
type Barrier interface {
	// Failed is closed as soon as it is known that no task will enter: what is done for
	// the container is of no use then. It may be closed with the end of Wait, too.
	Failed() <-chan struct{}
	// Wait is called once, with the reason if there is no container. It returns when
	// tasks may enter, or an error for them.
	Wait(failure error) error
}

// ErrFailedElsewhere is the reason why there is no container on a node whose barrier failed
// before it was there.
var ErrFailedElsewhere = errors.New("no task will enter the container")
