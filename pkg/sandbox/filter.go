// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbidden are system calls that no program of Brolga's needs which reads untrusted
// bytes, and through which the kernel or other processes are attacked: mounts and
// namespaces, other processes' memory, BPF, keys, io_uring, modules, clocks. They
// fail with EPERM. A list of what is allowed would be safer, but Go's runtime, glibc
// and the programs of squashfs-tools-ng may use other calls with each release.
var forbidden = []uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK, unix.SYS_LOOKUP_DCOOKIE,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	unix.SYS_PERSONALITY, unix.SYS_MEMFD_SECRET, unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES, unix.SYS_NFSSERVCTL,
}

// namespaces are the flags of clone(2) that make namespaces.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// tioclinux pastes into a console, as TIOCSTI does into any terminal.
const tioclinux = 0x541C

// Offsets in struct seccomp_data. Both machines are little endian, so an argument
// begins with its lower half, which is all that these system calls look at.
const (
	numberAt = 0
	archAt   = 4
	firstAt  = 16 // the first argument
	secondAt = 24
)

const (
	allow = unix.SECCOMP_RET_ALLOW
	kill  = unix.SECCOMP_RET_KILL_PROCESS
)

func refuse(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func give(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// unless skips instructions if the loaded value is not k.
func unless(k uint32, skip int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: uint8(skip)}
}

// unlessAny skips instructions if the loaded value has no bit of k.
func unlessAny(k uint32, skip int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: k, Jf: uint8(skip)}
}

// filter returns the program of the sandbox for seccomp(2). It kills who makes
// system calls of another machine, whose numbers mean something else.
func (s Sandbox) filter() []unix.SockFilter {
	thisArch := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch, Jt: 1}
	program := append([]unix.SockFilter{load(archAt), thisArch, give(kill), load(numberAt)}, otherABI...)
	for _, number := range slices.Concat(forbidden, forbiddenHere) {
		program = append(program, unless(number, 1), give(refuse(unix.EPERM)))
	}
	if s.Sealed {
		program = append(program, unless(unix.SYS_EXECVE, 1), give(refuse(unix.EPERM)), unless(unix.SYS_EXECVEAT, 1), give(refuse(unix.EPERM)))
	}
	// clone3(2) has its flags in memory, where no filter can look. glibc and Go then
	// use clone(2).
	program = append(program, unless(unix.SYS_CLONE3, 1), give(refuse(unix.ENOSYS)))
	program = append(program, call(unix.SYS_CLONE, load(firstAt), unlessAny(namespaces, 1), give(refuse(unix.EPERM)))...)
	program = append(program, call(unix.SYS_IOCTL, load(secondAt), unless(unix.TIOCSTI, 1), give(refuse(unix.EPERM)),
		unless(tioclinux, 1), give(refuse(unix.EPERM)))...)
	program = append(program, s.sockets()...)
	return append(program, give(allow))
}

// call is what is done for a system call that is allowed if the instructions do not
// say otherwise.
func call(number uint32, then ...unix.SockFilter) []unix.SockFilter {
	all := append([]unix.SockFilter{unless(number, len(then)+1)}, then...)
	return append(all, give(allow))
}

// sockets refuses those of unusual families, or all of them.
func (s Sandbox) sockets() []unix.SockFilter {
	if !s.Network {
		return []unix.SockFilter{unless(unix.SYS_SOCKET, 1), give(refuse(unix.EPERM))}
	}
	return []unix.SockFilter{
		unless(unix.SYS_SOCKET, 8),
		load(firstAt),
		unless(unix.AF_UNIX, 1), give(allow),
		unless(unix.AF_INET, 1), give(allow),
		unless(unix.AF_INET6, 1), give(allow),
		give(refuse(unix.EAFNOSUPPORT)),
	}
}

// install puts a filter on all threads of this process, which have no_new_privs.
func install(program []unix.SockFilter) error {
	p := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	failed, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return errno
	}
	if failed != 0 {
		return fmt.Errorf("thread %d has another filter", failed)
	}
	return nil
}

// text returns a filter as the launcher reads it (task/filter.c): flags and the
// bytes of the program in hexadecimal digits.
func text(program []unix.SockFilter) string {
	size := len(program) * int(unsafe.Sizeof(unix.SockFilter{}))
	return "0:" + hex.EncodeToString(unsafe.Slice((*byte)(unsafe.Pointer(&program[0])), size))
}
