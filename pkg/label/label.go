// SPDX-License-Identifier: Apache-2.0

// Package label has the AppArmor profile and the SELinux label that the site wants for
// tasks. Tasks get them in C (task/label.c), other processes of a container here.
//
// A node whose kernel has not what the site names starts no container.
package label

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// Labels are the names; empty ones are not wanted.
type Labels struct{ AppArmor, SELinux string }

// Check returns an error if the kernel has not what is named. Its /sys is given.
func (l Labels) Check(sys string) error {
	var errs []error
	enabled, err := os.ReadFile(filepath.Join(sys, "module/apparmor/parameters/enabled"))
	if l.AppArmor != "" && (err != nil || !strings.HasPrefix(string(enabled), "Y")) {
		errs = append(errs, missing("AppArmor", "container.apparmor_profile", l.AppArmor))
	}
	if _, err := os.Stat(filepath.Join(sys, "fs/selinux/enforce")); l.SELinux != "" && err != nil {
		errs = append(errs, missing("SELinux", "container.selinux_label", l.SELinux))
	}
	return errors.Join(errs...)
}

func missing(what, key, name string) error {
	return fault.WithHint(fmt.Errorf("the site wants %s %q for tasks, and the kernel of this node has no %[1]s, or it is off", what, name),
		fmt.Sprintf("tell the administrator to switch it on, or to leave %s empty", key))
}

// Records are those of a plan (spank/PROTOCOL.md).
func (l Labels) Records() []wire.Record {
	var records []wire.Record
	if l.AppArmor != "" {
		records = append(records, wire.Record{Key: "apparmor", Value: l.AppArmor})
	}
	if l.SELinux != "" {
		records = append(records, wire.Record{Key: "selinux", Value: l.SELinux})
	}
	return records
}

// OnExec has the kernel label the next program that the calling thread executes, or a
// child of it. The host's /proc is given.
func (l Labels) OnExec(proc *os.File) error {
	if l.AppArmor != "" {
		err := write(proc, "thread-self/attr/apparmor/exec", "exec "+l.AppArmor)
		if errors.Is(err, unix.ENOENT) { // before Linux 5.8
			err = write(proc, "thread-self/attr/exec", "exec "+l.AppArmor)
		}
		if err != nil {
			return fmt.Errorf("change to the site's AppArmor profile %s: %w", l.AppArmor, err)
		}
	}
	if l.SELinux != "" {
		if err := write(proc, "thread-self/attr/exec", l.SELinux); err != nil {
			return fmt.Errorf("change to the site's SELinux label %s: %w", l.SELinux, err)
		}
	}
	return nil
}

// write writes all of a text at once, as the kernel wants it.
func write(dir *os.File, path, text string) error {
	fd, err := unix.Openat(int(dir.Fd()), path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(text))
	return errors.Join(err, unix.Close(fd))
}
