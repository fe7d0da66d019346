// SPDX-License-Identifier: Apache-2.0

// Package userns makes a user namespace in which one user and one group of the
// host are root, and nobody else exists (user_namespaces(7)).
//
// The namespace belongs to root, not to the user: nobody outside gains a
// capability in it. Groups cannot be given up there ("deny" in setgroups), since
// a group may be what keeps its members out of a file.
package userns

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Make returns the namespace, which lives as long as the file is open or a
// process or mount uses it. A process has to be there while it is made: program
// is a path and arguments of one that waits for the end of its standard input.
// Identity: root.
func Make(uid, gid uint32, program ...string) (*os.File, error) {
	wait, end, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	defer wait.Close()
	pid, err := syscall.ForkExec(program[0], program, &syscall.ProcAttr{
		Files: []uintptr{wait.Fd()},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(uid), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(gid), Size: 1}},
		},
	})
	if err != nil {
		end.Close()
		return nil, fmt.Errorf("make user namespace: start %s: %w", program[0], err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	end.Close()
	reap(pid)
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	return ns, nil
}

func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}
