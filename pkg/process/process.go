// SPDX-License-Identifier: Apache-2.0

// Package process finds processes in /proc, and kills those that it found and no others.
package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ID identifies a process of this boot: the kernel gives numbers to others again.
type ID struct {
	PID int
	// Began is the start time in the kernel's words (proc_pid_stat(5), field 22).
	Began string
}

// Process is a process as it was when it was found.
type Process struct {
	ID
	Parent int
	// IsZombie means that it has ended, and that its parent has not waited for it yet.
	IsZombie bool
}

// Find returns the process with that number. The error wraps [fs.ErrNotExist] if there is
// none.
func Find(pid int) (Process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, unix.ESRCH) { // it ended after the open
		err = fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	if err != nil {
		return Process{}, err
	}
	p, ok := parse(string(text))
	if !ok {
		return Process{}, fmt.Errorf("/proc/%d/stat is cut off", pid)
	}
	return p, nil
}

// All returns all processes that can be seen.
func All() []Process {
	paths, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	var all []Process
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if p, ok := parse(string(text)); ok {
			all = append(all, p)
		}
	}
	return all
}

// parse reads "PID (NAME) STATE PARENT ..." (proc_pid_stat(5)). A name may have blanks and
// parentheses.
func parse(text string) (Process, bool) {
	const state, parent, began = 3 - 3, 4 - 3, 22 - 3 // without PID and name
	number, _, _ := strings.Cut(text, " ")
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) <= began {
		return Process{}, false
	}
	pid, err1 := strconv.Atoi(number)
	up, err2 := strconv.Atoi(fields[parent])
	return Process{ID{pid, fields[began]}, up, fields[state] == "Z" || fields[state] == "X"}, err1 == nil && err2 == nil
}

// Descendants returns those of the processes that live and are children of a process, their
// children, and so on.
func Descendants(of int, all []Process) []Process {
	var found []Process
	for _, p := range all {
		if p.Parent != of {
			continue
		}
		if !p.IsZombie {
			found = append(found, p)
		}
		found = append(found, Descendants(p.PID, all)...)
	}
	return found
}

// Lives reports whether a process has not ended.
func (id ID) Lives() (bool, error) {
	now, err := Find(id.PID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && now.ID == id && !now.IsZombie, err
}

// Kill kills a process. It is no error if that has ended.
func (id ID) Kill() error { return id.signal(unix.SIGKILL) }

func (id ID) signal(signal unix.Signal) error {
	send, done, err := id.sender()
	if err != nil {
		return fmt.Errorf("signal process %d: %w", id.PID, err)
	}
	defer done()
	lives, err := id.Lives()
	if err == nil && lives {
		err = send(signal)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", id.PID, err)
	}
	return nil
}

// sender returns what signals the process that has this number now, and none that gets the
// number later. A kernel before 5.3, or a seccomp filter, has no descriptors of processes;
// the number must do there.
func (id ID) sender() (send func(unix.Signal) error, done func(), err error) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	switch {
	case err == nil:
		return func(s unix.Signal) error { return unix.PidfdSendSignal(fd, s, nil, 0) }, func() { unix.Close(fd) }, nil
	case errors.Is(err, unix.ESRCH):
		return func(unix.Signal) error { return nil }, func() {}, nil
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		return func(s unix.Signal) error { return unix.Kill(id.PID, s) }, func() {}, nil
	}
	return nil, nil, err
}

// Killing takes rounds: what was made while one looked is found by the next.
const (
	rounds = 1000
	pause  = 5 * time.Millisecond
)

// KillDescendants kills all descendants of a process, and returns when there are none. They
// stay descendants if the process is their subreaper (PR_SET_CHILD_SUBREAPER).
func KillDescendants(of int) error {
	for range rounds {
		alive := Descendants(of, All())
		if len(alive) == 0 {
			return nil
		}
		for _, p := range alive {
			_ = p.Kill() // it may be root's; the next round looks again
		}
		time.Sleep(pause)
	}
	return fmt.Errorf("processes below %d do not end", of)
}

// KillTree kills a process and all its descendants. A stopped process starts no others, unless
// its user wakes it.
func (id ID) KillTree() error {
	lives, err := id.Lives()
	if err != nil || !lives {
		return err
	}
	err = id.signal(unix.SIGSTOP)
	if err == nil {
		err = KillDescendants(id.PID)
	}
	return errors.Join(err, id.Kill())
}
