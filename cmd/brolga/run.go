// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/account"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/edf"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/standalone"
	"github.com/brolga-hpc/brolga/pkg/step"
)

// runError is a failure of run before the command was started.
type runError struct{ error }

func (r runError) Unwrap() error { return r.error }

// runRun runs a command in a container as the user who calls. It decides all that
// there is to decide, fetches and opens the image, and then the launcher takes the
// place of this process (cmd/brolga-launch/run.c): the helper, which the launcher
// starts beside it, links what makes containers, and this program does not.
func runRun(ctx context.Context, v verb, args []string) error {
	l, err := newRunner(v, args)
	if err == nil {
		err = l.run(ctx)
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	return runError{err}
}

// runner starts a container without Slurm.
type runner struct {
	conf     config.Config
	confPath string
	call     step.Call
	asked    option.Set
	request  request.Request
	command  []string // as far as it is given
	// entrypoint tells whether it was said if the image's is to be run.
	entrypoint bool
}

func newRunner(v verb, args []string) (*runner, error) {
	l := &runner{}
	if err := l.parse(v, args); err != nil {
		return nil, err
	}
	if err := l.identify(); err != nil {
		return nil, err
	}
	variable, file, err := edf.Variable(l.call.Given, l.conf.Container.Environments, l.call.Step.Getenv)
	if err != nil {
		return nil, err
	}
	if variable != "" {
		l.call.Step.Env = append([]string{variable}, l.call.Step.Env...) // the first counts
	}
	l.takeImage(file)
	return l, l.resolve(v)
}

// identify fills in who calls.
func (l *runner) identify() error {
	me, err := user.Current()
	if err != nil {
		return fmt.Errorf("find out who calls: %w", err)
	}
	s := &l.call.Step
	s.UID, s.GID, s.Env = uint32(os.Geteuid()), uint32(os.Getegid()), withoutJobs(os.Environ())
	groups, err := os.Getgroups()
	if err != nil {
		return fmt.Errorf("find out who calls: %w", err)
	}
	for _, gid := range append([]int{os.Getegid()}, groups...) {
		s.Groups = append(s.Groups, uint32(gid))
		if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil { // others have no name there
			l.call.Groups = append(l.call.Groups, account.Group{Name: g.Name, GID: uint32(gid)})
		}
	}
	s.Groups = s.Groups[1:]
	l.call.Account = identity.User{Name: me.Username, UID: s.UID, GID: s.GID, Gecos: me.Name, Home: me.HomeDir, Shell: "/bin/sh"}
	return nil
}

// takeImage takes the first argument for the image, unless an option of the command
// line has named one, itself or with a file. Variables do not count: an argument
// must not change its meaning with them.
func (l *runner) takeImage(file option.Set) {
	named := false
	for _, g := range l.call.Given {
		named = named || g[0] == option.Image || g[0] == option.Environment && file.Has(option.Image)
	}
	if !named && len(l.command) > 0 {
		l.call.Given = append(l.call.Given, [2]string{option.Image, l.command[0]})
		l.command = l.command[1:]
	}
}

// resolve decides what is wanted.
func (l *runner) resolve(v verb) error {
	set, err := option.Collect(l.call.Given, l.call.Step.Getenv)
	if err != nil {
		return err
	}
	l.asked = set
	l.entrypoint = set.Has(option.Entrypoint)
	if l.request, err = request.Resolve(l.conf, set, l.call.Step); errors.Is(err, request.ErrNoImage) {
		return v.misused(fmt.Errorf("want %s", v.args))
	}
	if err != nil {
		return err
	}
	l.request.Step = fmt.Sprintf("run.%d", os.Getpid())
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the working directory: %w", err)
	}
	l.request = l.request.In(dir)
	return nil
}

func (l *runner) user() identity.User {
	a, s := l.call.Account, l.call.Step
	return identity.User{UID: s.UID, GID: s.GID, Groups: s.Groups, Name: a.Name, Home: a.Home}
}

func (l *runner) run(ctx context.Context) error {
	source := l.source()
	if err := l.fetch(ctx, source); err != nil {
		return err
	}
	if l.request.DryRun {
		return printSpec(l.conf, l.request)
	}
	// In the user namespace nobody can tell the host's root from others.
	if _, err := allHooks(l.conf); err != nil {
		return err
	}
	img, err := l.open(ctx, source)
	if err != nil {
		return err
	}
	defer img.Close()
	if err := l.takeCommand(img); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return l.launch(img)
}

// takeCommand decides what is executed. Given one, it is executed as srun does it.
// Given none, it is what docker executes.
func (l *runner) takeCommand(img image.Image) error {
	c, r := img.Meta.Config, &l.request
	if len(l.command) == 0 {
		r.Entrypoint = r.Entrypoint || !l.entrypoint
		l.command = c.Cmd
	}
	words := l.command
	if r.Entrypoint {
		words = append(append([]string{}, c.Entrypoint...), l.command...)
	}
	if len(words) == 0 {
		return fault.WithHint(fmt.Errorf("%s has no command of its own", r.Image), "name one: brolga run IMAGE sh")
	}
	r.Command = words[0]
	return nil
}

// launch has the launcher take the place of this process.
func (l *runner) launch(img image.Image) error {
	r := &l.request
	message, err := standalone.Write(standalone.Message{
		Step:     step.Step{Asked: l.asked, Config: l.conf, ConfigPath: l.confPath, Request: *r, Account: l.call.Account, Groups: l.call.Groups, Env: l.call.Step.Env},
		Way:      img.Way,
		Meta:     img.Meta,
		Terminal: terminal(),
	})
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(img.File.Fd(), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("pass the image on: %w", err)
	}
	kind := ""
	if r.UID != 0 {
		kind += "u"
	}
	if r.RemapRoot {
		kind += "r"
	}
	launcher := config.LauncherPath()
	argv := []string{launcher, "run", config.HelperPath(), strconv.Itoa(message), strconv.Itoa(int(img.File.Fd())), kind}
	// With this variable the launcher takes its arguments for a command (task/launch.h).
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "BROLGA_LAUNCH=") })
	err = syscall.Exec(launcher, append(argv, l.command...), env)
	return fault.WithHint(fmt.Errorf("execute %s: %w", launcher, err), "install all of Brolga")
}

// terminal returns the device that the user sits at, or "".
func terminal() string {
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
			continue
		}
		path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err == nil && strings.HasPrefix(path, "/dev/") && unix.Access(path, unix.F_OK) == nil {
			return path
		}
	}
	return ""
}
