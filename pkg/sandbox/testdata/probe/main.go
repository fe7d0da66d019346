// SPDX-License-Identifier: Apache-2.0

// Probe enters a sandbox and says what it can still do, in a thread that was there
// before. It is built without cgo, as the brolga command is.
//
//	probe SANDBOX ATTEMPT...
//
// SANDBOX is in JSON.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/sandbox"
)

// wanted is what the test asks for.
type wanted struct {
	Mode                     string
	Read, Run, Write, Change []string
	Network, Sealed          bool
}

func main() {
	var w wanted
	if err := json.Unmarshal([]byte(os.Args[1]), &w); err != nil {
		panic(err)
	}
	s := sandbox.Sandbox{Site: config.Sandbox{Mode: w.Mode}, Network: w.Network, Sealed: w.Sealed}
	s.Rules = append(s.Rules, sandbox.Read(w.Read...)...)
	s.Rules = append(s.Rules, sandbox.Run(w.Run...)...)
	s.Rules = append(s.Rules, sandbox.Write(w.Write...)...)
	s.Rules = append(s.Rules, sandbox.Change(w.Change...)...)
	entered, told := make(chan struct{}), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		entered <- struct{}{}
		<-entered
		for _, a := range os.Args[2:] {
			fmt.Printf("%s: %s\n", a, outcome(attempt(a)))
		}
		close(told)
	}()
	<-entered
	if err := s.Enter(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	close(entered)
	<-told
}

func outcome(err error) string {
	if err == nil {
		return "done"
	}
	if errno, ok := err.(unix.Errno); ok {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func attempt(a string) error {
	verb, object, _ := strings.Cut(a, " ")
	switch verb {
	case "read":
		return opened(object, unix.O_RDONLY)
	case "write":
		return opened(object, unix.O_WRONLY)
	case "truncate":
		return unix.Truncate(object, 0)
	case "make":
		return opened(object, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	case "list":
		return opened(object, unix.O_RDONLY|unix.O_DIRECTORY)
	case "remove":
		return unix.Unlink(object)
	case "rename":
		return unix.Rename(object, object+".new")
	case "run":
		if exec.Command(object).Run() != nil {
			return unix.EPERM
		}
		return nil
	case "socket":
		return socket(map[string]int{"unix": unix.AF_UNIX, "inet": unix.AF_INET, "inet6": unix.AF_INET6, "alg": unix.AF_ALG, "packet": unix.AF_PACKET}[object])
	case "listen":
		return listen()
	case "signal":
		return unix.Kill(os.Getppid(), 0)
	}
	return call(verb)
}

func opened(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func socket(family int) error {
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func listen() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrInet4{})
}

// call makes a system call with arguments that can do no harm.
func call(name string) error {
	const bad = ^uintptr(0)
	args, ok := map[string][4]uintptr{
		"ptrace":        {unix.SYS_PTRACE, unix.PTRACE_TRACEME},
		"bpf":           {unix.SYS_BPF, bad},
		"keyctl":        {unix.SYS_KEYCTL, bad},
		"io_uring":      {unix.SYS_IO_URING_SETUP, 0},
		"userfaultfd":   {unix.SYS_USERFAULTFD, bad},
		"newuser":       {unix.SYS_UNSHARE, unix.CLONE_NEWUSER},
		"mount":         {unix.SYS_MOUNT},
		"clone-newuser": {unix.SYS_CLONE, unix.CLONE_NEWUSER | unix.CLONE_THREAD},
		"clone3":        {unix.SYS_CLONE3},
		"x32":           {0x40000000 | unix.SYS_GETPID},
		"getpid":        {unix.SYS_GETPID},
	}[name]
	if !ok {
		panic(name)
	}
	var none [16]byte
	_, _, errno := unix.Syscall6(args[0], args[1], uintptr(unsafe.Pointer(&none)), 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
