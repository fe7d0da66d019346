// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Adopt makes this process the parent of all processes below it that lose their own
// (PR_SET_CHILD_SUBREAPER). None of them can get away from [EndOrphans] then.
func Adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt processes: %w", err)
	}
	return nil
}

// orphanTime is how long processes may take to die.
const orphanTime = 10 * time.Second

// EndOrphans kills all processes below this one, and returns when there are none. It
// is for a process that has called [Adopt] and runs no program at the moment.
func EndOrphans() error {
	for end := time.Now().Add(orphanTime); time.Now().Before(end); {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for orphans: %w", err)
		case pid == 0: // some are left, and alive
			if err := killChildren(); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
	}
	return errors.New("processes that were left do not end")
}

// killChildren kills those processes whose parent this one is.
func killChildren() error {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, parent := parseStat(string(text))
		if parent == os.Getpid() {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
	}
	return nil
}

// parseStat returns the numbers of a process and of its parent (proc_pid_stat(5)). The
// name between them may have any characters.
func parseStat(text string) (pid, parent int) {
	first, _, _ := strings.Cut(text, " ")
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0, 0
	}
	pid, _ = strconv.Atoi(first)
	parent, _ = strconv.Atoi(fields[1])
	return pid, parent
}
