// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
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
	for _, p := range processes() {
		if p.parent == os.Getpid() && p.isZombie && !c.own[p.pid] {
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		}
	}
}

// killAll kills all descendants. Those that are made meanwhile are found next.
func (c *children) killAll() {
	for range 1000 {
		alive := descendants(os.Getpid(), processes())
		if len(alive) == 0 {
			return
		}
		for _, pid := range alive {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone, or root's
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// process is one line of /proc/PID/stat (proc(5)).
type process struct {
	pid, parent int
	isZombie    bool
}

// processes returns all that can be seen.
func processes() []process {
	paths, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	var all []process
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if p, ok := parseStat(string(text)); ok {
			all = append(all, p)
		}
	}
	return all
}

// parseStat reads "PID (NAME) STATE PARENT ...". A name may have parentheses.
func parseStat(text string) (process, bool) {
	before, _, _ := strings.Cut(text, " ")
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return process{}, false
	}
	pid, err := strconv.Atoi(before)
	if err != nil {
		return process{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	return process{pid, parent, fields[0] == "Z" || fields[0] == "X"}, err == nil
}

// descendants returns the living children of a process and of those, and so on.
func descendants(of int, all []process) []int {
	var found []int
	for _, p := range all {
		if p.parent != of {
			continue
		}
		if !p.isZombie {
			found = append(found, p.pid)
		}
		found = append(found, descendants(p.pid, all)...)
	}
	return found
}
