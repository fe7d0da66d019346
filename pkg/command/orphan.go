// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/process"
)

// Adopt makes this process the parent of all processes below it that lose their own
// (PR_SET_CHILD_SUBREAPER). None of them can get away from [EndOrphans] then.
func Adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt processes: %w", err)
	}
	return nil
}

// EndOrphans kills all processes below this one, and returns when there are none. It
// is for a process that has called [Adopt] and runs no program at the moment.
func EndOrphans() error { return endChildren(nil, 10*time.Second) }

// End ends all processes below this one but those that stay, and returns when there are
// none. It waits no longer than the limit. It is for a process that exits next. Programs
// that tidy up may do that for half of the time.
func End(staying []int, limit time.Duration) error {
	return errors.Join(Adopt(), endChildren(staying, limit))
}

func endChildren(staying []int, limit time.Duration) error {
	began, asked := time.Now(), map[int]bool{}
	for time.Since(began) < limit {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for processes: %w", err)
		case pid != 0:
			continue
		}
		alive := childrenBut(staying)
		if len(alive) == 0 {
			return nil
		}
		for _, pid := range alive {
			endChild(pid, asked, time.Since(began) > limit/2)
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("processes that were left do not end")
}

// childrenBut returns the children of this process that live, but for some.
func childrenBut(staying []int) (pids []int) {
	for _, p := range process.All() {
		if p.Parent == os.Getpid() && !p.IsZombie && !slices.Contains(staying, p.PID) {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// endChild kills a child, or asks one that tidies up, once, to end.
func endChild(pid int, asked map[int]bool, late bool) {
	signal := unix.SIGKILL
	if isTidy(pid) && !late {
		if asked[pid] {
			return
		}
		asked[pid], signal = true, unix.SIGTERM
	}
	_ = unix.Kill(pid, signal) // it may have ended, and nobody has waited for it
}

// tidy are the programs that run and tidy up when they are asked to end.
var tidy struct {
	mu   sync.Mutex
	pids map[int]bool
}

func isTidy(pid int) bool {
	tidy.mu.Lock()
	defer tidy.mu.Unlock()
	return tidy.pids[pid]
}

// noteTidy notes such a program until the function that it returns is called.
func noteTidy(pid int) (forget func()) {
	tidy.mu.Lock()
	defer tidy.mu.Unlock()
	if tidy.pids == nil {
		tidy.pids = map[int]bool{}
	}
	tidy.pids[pid] = true
	return func() {
		tidy.mu.Lock()
		defer tidy.mu.Unlock()
		delete(tidy.pids, pid)
	}
}
