// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"

	"github.com/brolga-hpc/brolga/pkg/request"
)

// Gate is a hook that decides when the tasks enter the container, which is complete
// then, with all that other hooks have started in it.
type Gate interface {
	Hook
	// Begin is called before anything is done for the container, and only starts
	// what goes on beside that.
	Begin(r request.Request) Passage
}

// Passage is the way of one step's tasks through a gate.
type Passage interface {
	// Shut is closed as soon as it is known that no task will enter: then what is
	// done for the container is in vain. It may be closed with the end of Pass, too.
	Shut() <-chan struct{}
	// Pass is called once, with the reason if there is no container. It returns when
	// tasks may enter, or an error for them.
	Pass(failure error) error
}

// ErrShut is the reason why there is no container on a node whose gate was shut
// before it was there.
var ErrShut = errors.New("no task will enter the container")
