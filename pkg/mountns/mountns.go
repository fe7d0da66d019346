// SPDX-License-Identifier: Apache-2.0

// Package mountns runs code in a mount namespace of its own.
//
// A mount namespace belongs to a thread in Linux. [Do] gives a function a
// thread in a fresh copy of a namespace; when the function returns, the thread
// ends, and with it all mounts that nobody else holds. [Join] gives it one beside
// such a thread. Nothing is ever mounted
// where the host sees it, so nothing is left on the host, whatever is killed.
package mountns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f on a thread in a private copy of a mount namespace: the one that
// from refers to, or the caller's if from is nil. Mounts made by f stay in the
// copy; mounts made later in the original appear in the copy as well, which
// automounted home directories need (mount_namespaces(7), MS_SLAVE).
//
// f must not start goroutines that rely on the namespace, but may start
// processes. It needs CAP_SYS_ADMIN.
func Do(from *os.File, f func() error) error {
	return onThread(func() error { return enter(from) }, f)
}

// Join runs f on a thread in a mount namespace itself, beside others that are
// there. It needs CAP_SYS_ADMIN.
func Join(namespace *os.File, f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare the working directory: %w", err)
		}
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("join a mount namespace: %w", err)
		}
		return nil
	}, f)
}

// onThread runs enter and f on a thread that ends with them.
func onThread(enter, f func() error) error {
	result := make(chan error)
	go run(enter, f, result)
	return <-result
}

func run(enter, f func() error, result chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread's namespace is the one that /proc/self/ns shows of
		// this process. Hold it while another thread takes over.
		defer runtime.UnlockOSThread()
		taken := make(chan error)
		go run(enter, f, taken)
		result <- <-taken
		return
	}
	// Never unlocked: the thread ends with the goroutine.
	if err := enter(); err != nil {
		result <- err
		return
	}
	result <- f()
}

func enter(from *os.File) error {
	// setns(2) refuses a thread that shares its root and working directory.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the working directory: %w", err)
	}
	if from != nil {
		if err := unix.Setns(int(from.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter the job's mount namespace: %w", err)
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separate the mount namespace from the host's: %w", err)
	}
	return nil
}

// Same tells whether two open namespace files (/proc/PID/ns/mnt) refer to one
// namespace (namespaces(7)).
func Same(a, b *os.File) (bool, error) {
	var sa, sb unix.Stat_t
	if err := unix.Fstat(int(a.Fd()), &sa); err != nil {
		return false, fmt.Errorf("compare mount namespaces: %w", err)
	}
	if err := unix.Fstat(int(b.Fd()), &sb); err != nil {
		return false, fmt.Errorf("compare mount namespaces: %w", err)
	}
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino, nil
}
