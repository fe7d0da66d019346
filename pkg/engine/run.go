// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/audit"
	"github.com/brolga-hpc/brolga/pkg/bundle/rootfs"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/hook/external"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/save"
	"github.com/brolga-hpc/brolga/pkg/seccomp"
	"github.com/brolga-hpc/brolga/pkg/standalone"
	"github.com/brolga-hpc/brolga/pkg/step"
	"github.com/brolga-hpc/brolga/pkg/task"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// Engine prepares the container of one job step on one node. It does not change.
type Engine struct {
	Step  step.Step
	Hooks []hook.Hook
	// Programs runs hooks that are programs.
	Programs *external.Runner
	// Began is when the work began, for the log.
	Began time.Time
	// Namespace is the mount namespace the helper was started in. It is opened
	// first of all, because libcontainer may move any thread, the main one
	// included, to another.
	Namespace *os.File
	// Saving is where it is noted that a container is saved.
	Saving *save.Pending
	// Servers are the processes that serve squashfs files.
	Servers *rootfs.Servers
	// Staying gets the processes that work for the container after this one has ended.
	Staying *Staying
	// Local is set for a container without Slurm.
	Local *standalone.Container

	// Stepd is the number of the step's slurmstepd, which Tell tells what to do when
	// the step has ended (external.Leave).
	Stepd int
	Tell  func(path string) error
}

// run is the work for the step: what becomes known, and what changes, on the way.
type run struct {
	*Engine
	// request is the step's. What its first task and a named container add make a new one.
	request request.Request

	// firstTask waits for the first task.
	firstTask func() (*task.Hello, error)
	// barriers hold the tasks back until other nodes are ready.
	barriers barriers

	log   *audit.Log  // nil where there is none
	event audit.Event // what is known of the container

	// filter is what the site's seccomp profile says; nil where there is none.
	filter *seccomp.Filter
	// laps and debug are about the container that is being made, messages about the step;
	// the first task of the node shows them.
	laps            laps
	debug, messages []wire.Record
	// processes work for the container. programsNoted says that slurmstepd knows of the
	// programs that run when the step has ended.
	processes     []int
	programsNoted bool
	// release gives the container's name free; nil where it has none.
	release func()
}

// started is a container that tasks can join.
type started struct {
	container *container.Container
	process   *specs.Process
	numbers   []hook.Numbers
	saver     *saver // nil if it is not saved here
	// entrypoint is the image's.
	entrypoint []string
	hooks      []hook.Hook
	log        []wire.Record
}

func containerID(r request.Request) string { return "step-" + r.Step }

func (e *Engine) rootless() bool { return e.Local != nil && e.Local.Rootless }

func (e *Engine) terminal() string {
	if e.Local == nil {
		return ""
	}
	return e.Local.Terminal
}

// runDir is where the bundle is mounted.
func (e *Engine) runDir() string {
	if e.rootless() {
		return config.ContainerDir()
	}
	return e.Step.Config.RunDir
}

// user is the job's user.
func (e *Engine) user() identity.User {
	r, a := e.Step.Request, e.Step.Account
	return identity.User{UID: r.UID, GID: r.GID, Groups: r.Groups, Name: a.Name, Home: a.Home}
}

// addMessage tells the user something once the tasks are there.
func (r *run) addMessage(key, text string) {
	record := wire.Record{Key: key, Value: fault.Printable(text)}
	if !slices.Contains(r.messages, record) {
		r.messages = append(r.messages, record)
	}
}

// addDebug adds a line on the container that is being made.
func (r *run) addDebug(line string) {
	r.debug = append(r.debug, wire.Record{Key: "debug", Value: line})
}

// firstPID waits for the first task and returns its process.
func (r *run) firstPID() (pid int, err error) {
	first, err := r.firstTask()
	if err != nil {
		return 0, err
	}
	return first.PID, nil
}

// joinTask makes a process one of the step that a task is in, to be counted, limited and
// killed with it. The number of a task that the kernel did not tell is 0.
func (e *Engine) joinTask(pid, task int) error {
	if task == 0 {
		return nil
	}
	return mountns.Do(e.Namespace, func() error { return container.JoinCgroups(pid, task) })
}

// joinStep returns what makes a process one of the step that a task is in, once that is
// there. Without Slurm there is no step, and it is nil.
func (e *Engine) joinStep(task func() (pid int, err error)) func(pid int) error {
	if e.Local != nil {
		return nil
	}
	return func(pid int) error {
		of, err := task()
		if err != nil {
			return err
		}
		return e.joinTask(pid, of)
	}
}

// Staying are processes that somebody else ends. The zero value has none.
type Staying struct {
	mu   sync.Mutex
	pids []int
}

func (s *Staying) add(pids []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pids = append(s.pids, pids...)
}

// PIDs returns the numbers of the processes.
func (s *Staying) PIDs() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.pids)
}
