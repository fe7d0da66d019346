// SPDX-License-Identifier: Apache-2.0

// Command brolga-helper prepares the container of a job step on a compute node.
// The SPANK shim starts it as root in slurmstepd; nobody else calls it.
//
//	brolga-helper step    read the shim's message (pkg/job) from standard input,
//	                      decide, serve the tasks on descriptor 3, end with the
//	                      last of them
//	brolga-helper run     the same for "brolga run": a message of package local, the
//	                      command on descriptor 3, the image on 4
//	brolga-helper init    libcontainer's init; started by the helper itself
//	brolga-helper poststop  do what the first helper has noted, in files whose paths
//	                      are on descriptor 0: kill processes, run programs. The
//	                      shim starts it when the step has ended, and repeats in
//	                      slurmstepd's log what it says on descriptor 3
//	brolga-helper end CONFIG NODE JOB
//	                      remove what a job that has ended has left on the node,
//	                      and do at poststop what nobody else will; the shim starts
//	                      it in the job's epilog, and repeats in slurmd's log what
//	                      it says on standard error
//
// It is a program of its own, beside brolga, because it starts once per node
// and step, and libcontainer starts it once more: it links no registry client.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	// Its C constructor runs before main when the program is the init.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/hooks"
	"github.com/brolga-hpc/brolga/pkg/bundle/rootfs"
	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/engine"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook/external"
	"github.com/brolga-hpc/brolga/pkg/named"
	"github.com/brolga-hpc/brolga/pkg/save"
	"github.com/brolga-hpc/brolga/pkg/standalone"
	"github.com/brolga-hpc/brolga/pkg/step"
	"github.com/brolga-hpc/brolga/pkg/task"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// socket is the descriptor that the shim passes the tasks' socket as, and
// imageFile the one of the image where there is no shim.
const socket, imageFile = 3, 4

func main() {
	began := time.Now()
	if err := command.LimitMemory(); err != nil {
		fmt.Fprint(os.Stderr, fault.Format("brolga-helper: ", err))
		os.Exit(1)
	}
	verb := ""
	if len(os.Args) == 2 || len(os.Args) == 5 {
		verb = os.Args[1]
	}
	if err := closeOff(verb); err != nil {
		fmt.Fprint(os.Stderr, fault.Format("brolga-helper: ", err))
		os.Exit(1)
	}
	switch verb {
	case "end":
		if err := end(os.Args[2:]); err != nil {
			toSlurmd(fault.Line(err))
			os.Exit(1)
		}
	case "init":
		container.Init()
	case "poststop":
		poststop()
	case "step", "run":
		if err := serve(began, verb == "run"); err != nil {
			fmt.Fprint(os.Stderr, fault.Format("brolga-helper: ", err))
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "brolga-helper: error: slurmstepd starts this program; users want brolga or srun --container-image")
		os.Exit(2)
	}
}

// closeOff keeps what this process knows from core files. The init is libcontainer's, and
// without Slurm the helper maps the identities of a user namespace: these must stay
// dumpable.
func closeOff(verb string) error {
	if verb == "init" || verb == "run" {
		return command.NoCore()
	}
	return command.Hide()
}

func serve(began time.Time, withoutSlurm bool) (err error) {
	unix.CloseOnExec(socket)
	tasks := task.Listen(socket)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("internal error: %v", r)
			// A task may have said hello already.
			err = errors.Join(err, tasks.Send(task.Bad(err)), refuse(tasks, err))
		}
	}()
	programs := external.NewRunner()
	saving, servers, staying := &save.Pending{}, &rootfs.Servers{}, &engine.Staying{}
	end := sync.OnceFunc(func() {
		saving.Abort()
		programs.Stop()
		servers.End()
		endChildren(staying)
		if !withoutSlurm {
			sayEnd()
		}
	})
	defer end()
	go endWithStep(withoutSlurm, end)
	leaveSlurmstepd()
	j, here, err := read(withoutSlurm)
	e := &engine.Engine{Step: j, Hooks: hooks.All(), Programs: programs, Saving: saving, Servers: servers, Staying: staying, Began: began, Stepd: stepd(), Tell: tellStepd, Local: here}
	if err == nil {
		e.Namespace, err = os.Open("/proc/self/ns/mnt")
	}
	if err != nil {
		return errors.Join(err, refuse(tasks, e.Refuse(err)))
	}
	err = e.Serve(context.Background(), tasks)
	if withoutSlurm {
		return nil // the command has said it
	}
	return err
}

// read reads what to do.
func read(withoutSlurm bool) (step.Step, *standalone.Container, error) {
	if !withoutSlurm {
		j, err := step.Read(os.Stdin)
		return j, nil, err
	}
	unix.CloseOnExec(imageFile)
	c, err := standalone.Read(os.Stdin, imageFile)
	return c.Step, &c, err
}

// request is the descriptor that the request is read from, a socket whose other end
// slurmstepd keeps until it ends.
const request = 0

// stepd returns the number of the process that made the socket: this one's parent is
// slurmstepd's.
func stepd() int {
	peer, err := unix.GetsockoptUcred(request, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0
	}
	return int(peer.Pid)
}

// tellStepd leaves the path of a note in the socket, where it is until slurmstepd passes
// it on to the helper that it starts in the end.
func tellStepd(path string) error {
	if _, err := unix.Write(request, []byte(path+"\n")); err != nil {
		return fmt.Errorf("tell slurmstepd what runs at poststop: %w", err)
	}
	return nil
}

// sayEnd tells slurmstepd, by an empty line, that this process was not killed: nothing that
// it has started is left. slurmstepd needs that only if it looks later, and then it can be
// written.
func sayEnd() { _, _ = unix.Write(request, []byte("\n")) }

// poststop kills processes and runs programs when the step has ended. What fails is
// told, and changes nothing any more.
func poststop() {
	out := os.NewFile(socket, "slurmstepd")
	unix.CloseOnExec(socket)
	leaveSlurmstepd()
	tell := func(line string) { fmt.Fprintln(out, line) }
	defer limitEnd(tell).Stop()
	paths, err := io.ReadAll(os.Stdin)
	for path := range strings.Lines(string(paths)) {
		if path = strings.TrimSpace(path); path != "" {
			err = errors.Join(err, external.Stopped(path, external.NewRunner(), tell))
		}
	}
	if err != nil {
		tell(fault.Line(err))
	}
}

// endLimit is how long a job's end asks Slurm for its jobs. What is left then is removed
// later. poststopLimit is how long the end of a step or a job waits for all programs
// together. Each of them has a limit of its own, which the site sets.
const endLimit, poststopLimit = 30 * time.Second, 10 * time.Minute

// limitEnd ends this process at poststopLimit. What it has not done, the end of a later
// job does: the notes are there.
func limitEnd(tell func(line string)) *time.Timer {
	return time.AfterFunc(poststopLimit, func() {
		tell(fmt.Sprintf("programs at poststop have not ended within %v: the rest is left to the end of a later job", poststopLimit))
		os.Exit(1)
	})
}

// toSlurmd says a line that the plugin repeats in slurmd's log.
func toSlurmd(line string) { fmt.Fprintln(os.Stderr, line) }

// end removes the named containers of a job that has ended, and sees to what is left
// of steps whose slurmstepd was killed.
func end(args []string) error {
	if len(args) != 3 {
		return errors.New("end: want CONFIG NODE JOB")
	}
	conf, node := args[0], args[1]
	number, err := strconv.ParseUint(args[2], 10, 32)
	if err != nil {
		return fmt.Errorf("end: %q is no job", args[2])
	}
	cfg, _, err := step.Call{ConfigPath: conf}.LoadConfig(trust.Read)
	if err != nil {
		return err
	}
	defer limitEnd(toSlurmd).Stop()
	err = external.Abandoned(external.Notes(), external.NewRunner(), toSlurmd)
	return errors.Join(err, removeContainers(cfg, conf, node, uint32(number)))
}

func removeContainers(cfg config.Config, conf, node string, ended uint32) error {
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	err := named.Collect(cfg.Named, node, named.Limits{
		Ended: ended, MaxSize: -1, Note: toSlurmd,
		Jobs: func() (map[uint32]bool, error) { return named.Jobs(ctx, cfg.Named, node, os.Environ()) },
	}, nil)
	if err == nil {
		// Without the note the next job's end looks again, and that is all.
		_ = named.NoteNone(conf, cfg.Named, node)
	}
	return err
}

// endWithStep ends the process when nobody holds the other end of the tasks' socket:
// slurmstepd and all tasks are gone, or have what they need. A user can keep a copy of
// that end, so that slurmstepd also shuts the request's socket down when the step is over.
// Whatever was being done, the kernel undoes; stop ends programs that were started.
func endWithStep(withoutSlurm bool, stop func()) {
	// No event is asked for: POLLHUP is always reported (poll(2)).
	ends := []unix.PollFd{{Fd: socket}, {Fd: request}}
	if withoutSlurm {
		ends = ends[:1] // the request's other end is closed after it was written
	}
	for {
		n, err := unix.Poll(ends, -1)
		if n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			stop()
			os.Exit(0)
		}
	}
}

// childrenLimit is how long the end waits for what this process has started.
// slurmstepd waits longer (HELPER_END in spank/helper.c).
const childrenLimit = 4 * time.Second

// endChildren ends the container's init, and programs that are still running. They are in
// the job's cgroup as this process is. slurmstepd removes that next, and only once: it
// would stay for a process that outlives this one.
func endChildren(staying *engine.Staying) {
	_ = command.End(staying.PIDs(), childrenLimit) // the kernel kills them later
}

// leaveSlurmstepd undoes what a child inherits from slurmstepd and should not
// have: a peculiar umask, and protection from the out-of-memory killer. Signals
// are in signals.go.
func leaveSlurmstepd() {
	unix.Umask(0o022)
	// Failing to be killed first is no reason to fail the step.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0)
}

// refuse tells all tasks why there is no container.
func refuse(tasks *task.Listener, reason error) error {
	answer := task.Bad(reason)
	for {
		hello, err := tasks.Next()
		if err != nil {
			return nil
		}
		hello.Close()
		if err := tasks.Send(answer); err != nil {
			return err
		}
	}
}
