// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/process"
)

// children are the processes that sessions have started, and theirs. All remain
// descendants of this process, whatever becomes of those in between: it is their
// subreaper (prctl(2)).
type children struct {
	mu sync.Mutex
	// own are those that somebody waits for here.
	own map[int]bool
}

// newChildren makes this process the one that minds orphans.
func newChildren() (*children, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become the reaper of orphans: %w", err)
	}
	c := &children{own: map[int]bool{}}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			// Many die at once, and looking for them costs more than waiting.
			time.Sleep(time.Second)
			c.reap()
		}
	}()
	return c, nil
}

// start starts a command that wait will be called for.
func (c *children) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	c.own[cmd.Process.Pid] = true
	return nil
}

// wait returns how the command ended.
func (c *children) wait(cmd *exec.Cmd) *os.ProcessState {
	_ = cmd.Wait() // the state says more
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.own, cmd.Process.Pid)
	return cmd.ProcessState
}

// reap takes the status of orphans that have ended.
func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range process.All() {
		if p.Parent == os.Getpid() && p.IsZombie && !c.own[p.PID] {
			_, _ = unix.Wait4(p.PID, nil, unix.WNOHANG, nil)
		}
	}
}
