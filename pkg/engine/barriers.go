// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"sync"
	"time"

	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// barriers are the waits for the other nodes of the step, one for each hook that has one.
type barriers struct {
	names  []string
	all    []hook.Barrier
	failed chan struct{} // closed when one has failed; nil without waits
}

// beginBarriers begins all waits that the step has.
func (r *run) beginBarriers() barriers {
	var o barriers
	for _, h := range hook.Select(r.Hooks, r.request) {
		b, ok := h.(hook.BarrierHook)
		if !ok {
			continue
		}
		o.names = append(o.names, h.Name())
		o.all = append(o.all, b.Begin(r.request))
	}
	if len(o.all) == 0 {
		return o
	}
	o.failed = make(chan struct{})
	fail := sync.OnceFunc(func() { close(o.failed) })
	for _, w := range o.all {
		go func() {
			<-w.Failed()
			fail()
		}()
	}
	return o
}

// wait waits for all one after the other, and tells each what went wrong before.
func (o barriers) wait(failure error) ([]wire.Record, error) {
	var records []wire.Record
	for i, w := range o.all {
		began := time.Now()
		if err := w.Wait(failure); err != nil {
			failure = err
		}
		text := fmt.Sprintf("hook %s took %.1f ms", o.names[i], float64(time.Since(began).Microseconds())/1e3)
		records = append(records, wire.Record{Key: "debug", Value: text})
	}
	return records, failure
}
