// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"os"
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
			killChildren()
			time.Sleep(time.Millisecond)
		}
	}
	return errors.New("processes that were left do not end")
}

// killChildren kills those processes whose parent this one is.
func killChildren() {
	for _, p := range process.All() {
		if p.Parent == os.Getpid() {
			_ = unix.Kill(p.PID, unix.SIGKILL) // it may have ended, and nobody has waited for it
		}
	}
}
