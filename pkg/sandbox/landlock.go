// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
)

// access is a set of Landlock's rights to files (LANDLOCK_ACCESS_FS_*).
type access uint64

const (
	readable   access = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	executable access = readable | unix.LANDLOCK_ACCESS_FS_EXECUTE
	writable   access = readable | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	// changeable lets files, directories and links be made, removed and renamed.
	changeable access = writable | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REFER
	controllable access = writable | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	// ofFiles are the rights that a rule for a file that is no directory can give.
	ofFiles access = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// handled is what each version of Landlock can forbid (the kernel's
// Documentation/userspace-api/landlock.rst). The index is the version.
var handled = []unix.LandlockRulesetAttr{
	1: {Handled_access_fs: unix.LANDLOCK_ACCESS_FS_REFER - 1},
	2: {Handled_access_fs: unix.LANDLOCK_ACCESS_FS_TRUNCATE - 1},
	3: {Handled_access_fs: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV - 1},
	4: {Handled_access_fs: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV - 1, Handled_access_net: tcp},
	5: {Handled_access_fs: 2*unix.LANDLOCK_ACCESS_FS_IOCTL_DEV - 1, Handled_access_net: tcp},
	6: {Handled_access_fs: 2*unix.LANDLOCK_ACCESS_FS_IOCTL_DEV - 1, Handled_access_net: tcp, Scoped: unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET},
}

const tcp = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP

// Version returns the kernel's version of Landlock, 0 where there is none.
func Version() int {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 { // not built in, or not switched on at boot
		return 0
	}
	return int(n)
}

// handles returns what a sandbox forbids on a kernel with a version of Landlock. Of what
// can be kept inside (LANDLOCK_SCOPE_*) that is scope at most.
func (s Sandbox) handles(version int, scope uint64) unix.LandlockRulesetAttr {
	attr := handled[min(version, len(handled)-1)]
	if s.Network {
		attr.Handled_access_net &^= unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	attr.Scoped &= scope
	return attr
}

// errNoLandlock means that the site requires Landlock and the kernel has none.
var errNoLandlock = errors.New(`this kernel has no Landlock, or it is off (the boot parameter "lsm"), and the site's sandbox.mode requires it`)

// ruleset makes the rules, as a descriptor that the caller closes; nil where the kernel
// has no Landlock. It opens the files of the rules.
func (s Sandbox) ruleset(scope uint64) (*os.File, error) {
	version := Version()
	switch {
	case version == 0 && s.Site.Mode == config.SandboxRequired:
		return nil, fmt.Errorf("enter a sandbox: %w", errNoLandlock)
	case version == 0:
		return nil, nil
	}
	attr := s.handles(version, scope)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return nil, fmt.Errorf("enter a sandbox: %w", errno)
	}
	rules := os.NewFile(fd, "the rules of a sandbox") // the kernel sets close-on-exec
	for _, r := range s.Rules {
		if err := r.addTo(rules, access(attr.Handled_access_fs)); err != nil {
			rules.Close()
			return nil, fmt.Errorf("enter a sandbox: allow %s: %w", r.name(), err)
		}
	}
	return rules, nil
}

// addTo adds the rule to others, as far as its rights are handled. A file that does not
// exist, or that the caller may not reach, needs no rule.
func (r Rule) addTo(rules *os.File, handled access) error {
	f := r.file
	if f == nil {
		fd, err := unix.Open(r.path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), r.path)
		defer f.Close()
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	rights := r.access & handled
	if !st.IsDir() {
		rights &= ofFiles
	}
	if rights == 0 {
		return nil
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: uint64(rights), Parent_fd: int32(f.Fd())}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, rules.Fd(), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	runtime.KeepAlive(f)
	if errno != 0 && errno != unix.EBADFD { // a pipe, or a file of memory only: Landlock lets it be
		return errno
	}
	return nil
}
