// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/save"
	"github.com/brolga-hpc/brolga/pkg/task"
	"github.com/brolga-hpc/brolga/pkg/userfile"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// saver saves the container when the last task of the node has ended. Each task's
// launcher says that its command has ended. All but the last may go then, so that
// Slurm learns of their ends as ever; the last one waits, and fails if the
// container could not be saved. The step so ends when the file is there, and who
// ends the step before ends that launcher, and the helper with it.
type saver struct {
	tasks  int // on this node
	ended  chan ending
	target *save.Target
	// tree opens what is to be saved, asUser keeps from what the user may not read.
	tree   func() (*os.File, error)
	asUser bool
}

// ending is the end of one task: its process, and where it waits, if it does.
type ending struct {
	pid   int
	reply *os.File
}

// openSaved opens the place of the file, or returns nil if this node saves nothing. It is
// called in the tasks' mount namespace.
func (r *run) openSaved() (*saver, error) {
	if !r.request.Saves() {
		return nil, nil
	}
	target, err := save.Open(r.request.Save.Path, r.user())
	return &saver{tasks: int(r.request.Tasks), ended: make(chan ending), target: target}, err
}

// watch notes the end of a task that says nothing any more.
func (s *saver) watch(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it is dead, or the kernel is older than 5.3 and it has to say so
	}
	go func() {
		defer unix.Close(fd)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 {
				s.ended <- ending{pid: pid}
				return
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
}

// runSaver waits for the ends of the tasks, and saves. It returns when there is nothing
// left to do.
func (r *run) runSaver(ctx context.Context, s *saver) {
	gone := map[int]bool{}
	for end := range s.ended {
		gone[end.pid] = true
		switch {
		case end.reply == nil:
		case len(gone) < s.tasks:
			replySaved(end.reply, nil)
		default:
			replySaved(end.reply, r.save(ctx, s, end.pid))
			return
		}
	}
}

// replySaved tells the launcher of a task what came of it. A launcher that is dead does
// not mind.
func replySaved(reply *os.File, err error) {
	defer reply.Close()
	records := []wire.Record{{Key: "saved", Value: "1"}}
	if err != nil {
		records = []wire.Record{{Key: "error", Value: fault.Line(err)}}
		if hint := fault.Hint(err); hint != "" {
			records = append(records, wire.Record{Key: "hint", Value: hint})
		}
	}
	if text, err := wire.Marshal(records); err == nil {
		_, _ = reply.Write(text)
	}
}

// save writes the file, as a part of the step that the process pid is in: its limits
// hold, and it is killed with it. The helper is not, and removes what is left then.
func (r *run) save(ctx context.Context, s *saver, pid int) error {
	defer s.target.Close()
	ctx, done := r.Saving.Begin(ctx)
	defer done()
	tree, err := s.tree()
	if err != nil {
		return fmt.Errorf("save the container: %w", err)
	}
	defer tree.Close()
	return s.target.Write(ctx, save.Params{
		Client: r.Step.Config.Client, ConfigPath: r.Step.ConfigPath, Tree: tree,
		Remapped: r.request.RemapRoot, OnlyAsUser: s.asUser, Umask: umaskOrStrictest(pid),
		Join: r.joinStep(func() (int, error) { return pid, nil }),
	})
}

// prepare has the saver save the container, whose root directory open opens. Without a
// saver it does nothing.
func (s *saver) prepare(of *started, way userfile.Way, open func() (*os.File, error)) {
	if s == nil {
		return
	}
	s.asUser = way == userfile.Bind
	s.tree = func() (tree *os.File, err error) {
		err = of.container.WithBuilder(func() error {
			tree, err = open()
			return err
		})
		return tree, err
	}
	of.saver = s
}

// note takes what a task has said of its end, or that it has begun.
func (s *saver) note(h *task.Hello) {
	if h.Reply != nil {
		s.ended <- ending{h.PID, h.Reply}
		return
	}
	s.watch(h.PID)
}
