// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"time"

	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// gates are what the tasks of the step have to pass.
type gates struct {
	names    []string
	passages []hook.Passage
	shut     chan struct{} // nil without gates: never closed
}

// begin begins with all gates that the step has.
func (e *Engine) begin() gates {
	var g gates
	for _, h := range hook.Select(e.Hooks, e.Job.Request) {
		gate, ok := h.(hook.Gate)
		if !ok {
			continue
		}
		g.names = append(g.names, h.Name())
		g.passages = append(g.passages, gate.Begin(e.Job.Request))
	}
	if len(g.passages) > 0 {
		g.shut = make(chan struct{})
		once := make(chan struct{}, 1)
		for _, p := range g.passages {
			go func() {
				<-p.Shut()
				select {
				case once <- struct{}{}:
					close(g.shut)
				default:
				}
			}()
		}
	}
	return g
}

// pass passes all gates one after the other, each with what the one before said.
func (g gates) pass(failure error) ([]wire.Record, error) {
	var told []wire.Record
	for i, p := range g.passages {
		began := time.Now()
		if err := p.Pass(failure); err != nil {
			failure = err
		}
		text := fmt.Sprintf("hook %s took %.1f ms", g.names[i], float64(time.Since(began).Microseconds())/1e3)
		told = append(told, wire.Record{Key: "debug", Value: text})
	}
	return told, failure
}

// Refuse tells the other nodes of a step why it cannot start here, and returns what
// to tell the tasks.
func (e *Engine) Refuse(reason error) error {
	e.openAudit()
	e.tellAudit(reason)
	_, err := e.begin().pass(reason)
	return err
}
