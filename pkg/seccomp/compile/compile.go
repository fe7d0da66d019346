// SPDX-License-Identifier: Apache-2.0

// Package compile makes a filter of a seccomp profile, as runc does for Docker and
// Podman: moby's code decides which rules apply, libseccomp makes the program.
package compile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/seccomp"
)

// longest is the number of instructions that the kernel takes (BPF_MAXINSNS), and
// size that of bytes in one.
const longest, size = 4096, 8

// Profile makes a filter for tasks without capabilities on this machine. Errors
// tell all that is wrong with the rules.
func Profile(text []byte) (seccomp.Filter, error) {
	none := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}
	profile, err := profiles.LoadProfile(string(text), none)
	if err != nil {
		return seccomp.Filter{}, err
	}
	if profile == nil || profile.DefaultAction == "" {
		return seccomp.Filter{}, errors.New("no defaultAction, such as SCMP_ACT_ERRNO")
	}
	c := compiler{profile: profile}
	if err := c.begin(); err != nil {
		return seccomp.Filter{}, err
	}
	defer c.filter.Release()
	var errs []error
	for i, call := range profile.Syscalls {
		if err := c.add(call); err != nil {
			errs = append(errs, fmt.Errorf("rule %d (%s): %w", i+1, strings.Join(call.Names, " "), err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return seccomp.Filter{}, err
	}
	return c.finish()
}

// compiler makes one filter.
type compiler struct {
	profile *specs.LinuxSeccomp
	filter  *libseccomp.ScmpFilter
	normal  libseccomp.ScmpAction // where no rule says otherwise
	flags   uint
	last    libseccomp.ScmpSyscall // the newest call that the profile knows
	rules   int
	unknown []string
}

func (c *compiler) begin() (err error) {
	if c.normal, err = action(c.profile.DefaultAction, c.profile.DefaultErrnoRet); err != nil {
		return fmt.Errorf("defaultAction: %w", err)
	}
	if err := c.setFlags(); err != nil {
		return err
	}
	if c.filter, err = libseccomp.NewFilter(c.normal); err != nil {
		return err
	}
	// Libseccomp's default kills the thread, and the rest of the process waits for it.
	if err := c.filter.SetBadArchAction(libseccomp.ActKillProcess); err != nil {
		return err
	}
	for _, name := range c.profile.Architectures {
		arch, err := libseccomp.GetArchFromString(strings.TrimPrefix(string(name), "SCMP_ARCH_"))
		if err == nil {
			err = c.filter.AddArch(arch)
		}
		if err != nil {
			return fmt.Errorf("architecture %s: %w", name, err)
		}
	}
	return nil
}

func (c *compiler) setFlags() error {
	for _, flag := range c.profile.Flags {
		switch flag {
		case "SECCOMP_FILTER_FLAG_TSYNC": // a task has one thread
		case specs.LinuxSeccompFlagLog:
			c.flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			c.flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		default:
			return fmt.Errorf("flag %q is not supported", flag)
		}
	}
	return nil
}

// action returns libseccomp's word for one of a profile's. Tracers and those who
// would be notified are not there.
func action(name specs.LinuxSeccompAction, number *uint) (libseccomp.ScmpAction, error) {
	switch name {
	case specs.ActAllow:
		return libseccomp.ActAllow, nil
	case specs.ActLog:
		return libseccomp.ActLog, nil
	case specs.ActTrap:
		return libseccomp.ActTrap, nil
	case specs.ActKill, specs.ActKillThread:
		return libseccomp.ActKillThread, nil
	case specs.ActKillProcess:
		return libseccomp.ActKillProcess, nil
	case specs.ActErrno:
		return failure(number)
	case specs.ActNotify, specs.ActTrace:
		return 0, fmt.Errorf("%s is not supported: nobody would answer", name)
	}
	return 0, fmt.Errorf("unknown action %q", name)
}

// failure returns the action that makes a call fail; the kernel knows errors up to
// 4095 (MAX_ERRNO).
func failure(number *uint) (libseccomp.ScmpAction, error) {
	code := uint(unix.EPERM)
	if number != nil {
		code = *number
	}
	if code > 4095 {
		return 0, fmt.Errorf("errnoRet %d: want 0 to 4095", code)
	}
	return libseccomp.ActErrno.SetReturnCode(int16(code)), nil
}

func (c *compiler) add(call specs.LinuxSyscall) error {
	if len(call.Names) == 0 || slices.Contains(call.Names, "") {
		return errors.New("a system call without a name")
	}
	then, err := action(call.Action, call.ErrnoRet)
	if err != nil {
		return err
	}
	rules, err := conditions(call.Args)
	if err != nil {
		return err
	}
	for _, name := range call.Names {
		number, err := libseccomp.GetSyscallFromName(name)
		if err != nil {
			c.unknown = append(c.unknown, name) // newer than libseccomp, or of another architecture
			continue
		}
		c.last = max(c.last, number)
		if then == c.normal {
			continue // libseccomp refuses what changes nothing
		}
		c.rules++
		for _, rule := range rules {
			if err := c.filter.AddRuleConditional(number, then, rule); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

var operators = map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp{
	specs.OpNotEqual:     libseccomp.CompareNotEqual,
	specs.OpLessThan:     libseccomp.CompareLess,
	specs.OpLessEqual:    libseccomp.CompareLessOrEqual,
	specs.OpEqualTo:      libseccomp.CompareEqual,
	specs.OpGreaterEqual: libseccomp.CompareGreaterEqual,
	specs.OpGreaterThan:  libseccomp.CompareGreater,
	specs.OpMaskedEqual:  libseccomp.CompareMaskedEqual,
}

// conditions returns the rules that arguments stand for. All conditions of a rule
// must hold, except where two are of one argument: then one of all is enough, as
// Docker and runc have it.
func conditions(args []specs.LinuxSeccompArg) ([][]libseccomp.ScmpCondition, error) {
	var all []libseccomp.ScmpCondition
	var each [][]libseccomp.ScmpCondition
	seen := map[uint]bool{}
	for _, a := range args {
		op, known := operators[a.Op]
		if !known {
			return nil, fmt.Errorf("unknown operator %q", a.Op)
		}
		cond, err := libseccomp.MakeCondition(a.Index, op, a.Value, a.ValueTwo)
		if err != nil {
			return nil, fmt.Errorf("argument %d: %w", a.Index, err)
		}
		seen[a.Index] = true
		all = append(all, cond)
		each = append(each, []libseccomp.ScmpCondition{cond})
	}
	if len(seen) < len(args) {
		return each, nil
	}
	return [][]libseccomp.ScmpCondition{all}, nil
}

func (c *compiler) finish() (seccomp.Filter, error) {
	// A search tree, as runc has it: libseccomp 2.5 fails to make small ones.
	if c.rules > 32 {
		if err := c.filter.SetOptimize(2); err != nil {
			return seccomp.Filter{}, err
		}
	}
	program, err := export(c.filter)
	if err != nil {
		return seccomp.Filter{}, err
	}
	program = append(c.newer(), program...)
	if n := len(program) / size; n > longest {
		return seccomp.Filter{}, fmt.Errorf("%d instructions; the kernel takes %d: make it simpler, or name fewer architectures", n, longest)
	}
	f := seccomp.Filter{Flags: c.flags, Program: program}
	if len(c.unknown) > 0 {
		slices.Sort(c.unknown)
		f.Notes = []string{"unknown to libseccomp and ignored: " + strings.Join(slices.Compact(c.unknown), " ")}
	}
	return f, nil
}

func export(filter *libseccomp.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "filter")
	defer f.Close()
	if err := filter.ExportBPF(f); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}
