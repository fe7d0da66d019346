// SPDX-License-Identifier: Apache-2.0

// Package identity lets a process that runs as root touch files as a user.
//
// [User.Do] changes the file-system identity of one thread: user, group and
// supplementary groups as file servers and permission checks see them, with
// all of root's capabilities gone. The rest of the process keeps its
// own. The system calls are made raw, because those of Go and of the C library
// change all threads of a process, or refuse to change one.
//
// It is for opening and reading files. A program that runs as a user is
// started by package command.
package identity

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// User is the user that a job step or a program runs as. What is not known is empty.
type User struct {
	UID, GID uint32
	Groups   []uint32 // the complete set of supplementary groups
	// Name, Gecos, Home and Shell are those of passwd(5).
	Name, Gecos, Home, Shell string
}

// Do calls f with the file-system identity of u and restores what was before.
//
// f runs on the calling goroutine, which stays on its thread; goroutines that f
// starts do not have the identity. A process that is not root can only be
// itself: for another user Do returns an error and does not call f.
//
// See [User.DoPrivileged] for who must keep privilege.
//
// Do panics when the former identity cannot be restored, because nothing that
// would follow can be right.
func (u User) Do(f func() error) error { return u.do(f, false) }

// DoPrivileged is Do, but keeps root's capabilities: file servers see the user,
// this kernel does not refuse what the user may not do. It is for mounts whose
// later accesses are made with the identity of who mounted.
func (u User) DoPrivileged(f func() error) error { return u.do(f, true) }

func (u User) do(f func() error, privileged bool) error {
	if euid := os.Geteuid(); euid != 0 {
		if uint32(euid) != u.UID {
			return fmt.Errorf("act as user %d: not root", u.UID)
		}
		return f()
	}
	runtime.LockOSThread()
	// Not unlocked after a panic: the thread dies with its goroutine.
	before, err := current()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("act as user %d: %w", u.UID, err)
	}
	var caps capabilities
	if err := caps.get(); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("act as user %d: %w", u.UID, err)
	}
	restore := func() {
		// Capabilities first: setting groups needs one.
		if err := errors.Join(caps.set(), before.assume(u.Groups)); err != nil {
			panic(fmt.Sprintf("internal error: restore the identity of a thread: %v", err))
		}
		runtime.UnlockOSThread()
	}
	err = u.assume(before.Groups)
	if err == nil {
		wanted := caps // the change of the user has taken some away
		if !privileged {
			wanted = caps.without()
		}
		err = wanted.set()
	}
	if err != nil {
		restore()
		return fmt.Errorf("act as user %d: %w", u.UID, err)
	}
	defer restore()
	return f()
}

// capabilities are those of a thread (capget(2)). The kernel takes the ones for
// files away with the file-system user id, but not CAP_SYS_PTRACE, which opens
// links such as /proc/PID/cwd of processes that are others'.
type capabilities [2]unix.CapUserData

func (c *capabilities) get() error {
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &c[0]); err != nil {
		return fmt.Errorf("get capabilities: %w", err)
	}
	return nil
}

func (c capabilities) set() error {
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &c[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// without returns c with none in effect, but still permitted.
func (c capabilities) without() capabilities {
	c[0].Effective, c[1].Effective = 0, 0
	return c
}

// assume gives the calling thread, whose groups are now, the file-system identity
// of u. Groups come first, since setting them needs a capability; the user comes
// last, since it takes CAP_DAC_OVERRIDE and its like away and, for root, brings
// them back. Root of a user namespace may not set groups, but may keep them.
func (u User) assume(now []uint32) error {
	if !slices.Equal(u.Groups, now) {
		if err := setgroups(u.Groups); err != nil {
			return err
		}
	}
	setfs(unix.SYS_SETFSGID, u.GID)
	setfs(unix.SYS_SETFSUID, u.UID)
	if setfs(unix.SYS_SETFSGID, keep) != u.GID || setfs(unix.SYS_SETFSUID, keep) != u.UID {
		return errors.New("the kernel refused the user or group")
	}
	return nil
}

// current returns the file-system identity of the calling thread.
func current() (User, error) {
	groups, err := getgroups()
	if err != nil {
		return User{}, err
	}
	return User{UID: setfs(unix.SYS_SETFSUID, keep), GID: setfs(unix.SYS_SETFSGID, keep), Groups: groups}, nil
}

// keep is an id that no one has: setting it changes nothing.
const keep = ^uint32(0)

// setfs calls setfsuid(2) or setfsgid(2), which return the former id and do
// not report errors.
func setfs(call uintptr, id uint32) uint32 {
	was, _, _ := unix.RawSyscall(call, uintptr(id), 0, 0)
	return uint32(was)
}

func setgroups(groups []uint32) error {
	groups = slices.Clone(groups)
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	if errno != 0 {
		return fmt.Errorf("setgroups: %w", errno)
	}
	return nil
}

func getgroups() ([]uint32, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_GETGROUPS, 0, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("getgroups: %w", errno)
	}
	if n == 0 {
		return nil, nil
	}
	groups := make([]uint32, n)
	n, _, errno = unix.RawSyscall(unix.SYS_GETGROUPS, n, uintptr(unsafe.Pointer(&groups[0])), 0)
	if errno != 0 {
		return nil, fmt.Errorf("getgroups: %w", errno)
	}
	return groups[:n], nil
}
