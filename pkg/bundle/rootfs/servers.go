// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Servers are the processes that serve squashfs files to a container. They end with
// its mounts, unless their user has stopped them. Whoever starts them kills those that
// no container uses. The others are killed when the step has ended.
//
// They are children of this process, which waits for none of them: no number of
// theirs is ever another's.
type Servers struct {
	mu   sync.Mutex
	pids []int
}

// start notes a process that f starts.
func (s *Servers) start(f func() (pid int, err error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := f()
	if err == nil {
		s.pids = append(s.pids, pid)
	}
	return err
}

// Leave says that a container uses them: they are not this process's to kill any more.
// It returns their numbers.
func (s *Servers) Leave() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	pids := s.pids
	s.pids = nil
	return pids
}

// Kill ends those that were not left.
func (s *Servers) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

// End is Kill for a process that exits next: none is started any more.
func (s *Servers) End() {
	s.mu.Lock() // for good
	s.kill()
}

func (s *Servers) kill() {
	for _, pid := range s.pids {
		_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
	}
	s.pids = nil
}
