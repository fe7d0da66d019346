// SPDX-License-Identifier: Apache-2.0

// Package container starts a step's container with libcontainer, whose only
// importer it is.
//
// What a step needs of a container is its mount namespace. [Start] lets
// libcontainer's init make that, run the hooks and switch the root;
// [Container.End] ends the init, which never executes anything: the tasks are
// Slurm's, and no process of ours remains. The namespace lives as long as a
// descriptor or a task refers to it.
//
// # Cgroups
//
// A step's tasks are in Slurm's cgroups, so the container must have none.
// libcontainer always makes one, except that in its rootless mode it goes on
// where it is not allowed to. The calling thread's view of /sys/fs/cgroup is
// therefore made read-only first. docs/decisions/0001-no-cgroups.md has the
// measurements.
package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	// libcontainer refuses to start a container without a device manager.
	_ "github.com/opencontainers/cgroups/devices"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/bundle"
	"github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/option"
)

// Container is a started container.
type Container struct {
	// Namespace refers to the mount namespace, Root to its root directory
	// (O_PATH).
	Namespace, Root *os.File
	// Others are the container's namespaces of other kinds, in the order that
	// tasks join them.
	Others []Namespace
	// builder is the namespace that Start was called in. libcontainer keeps a
	// descriptor of its first /sys/fs/cgroup for the life of the process, and
	// cannot start another container once that mount is gone.
	builder *os.File

	init *libcontainer.Process
}

// Namespace is an open namespace; Kind is the name it has in /proc/PID/ns.
type Namespace struct {
	Kind string
	File *os.File
}

// Close releases the descriptors. After the first container was closed, the
// process cannot start another.
func (c *Container) Close() error {
	errs := []error{c.Namespace.Close(), c.Root.Close()}
	if c.builder != nil {
		errs = append(errs, c.builder.Close())
	}
	for _, ns := range c.Others {
		errs = append(errs, ns.File.Close())
	}
	return errors.Join(errs...)
}

// Inside runs f on a thread in the container's namespaces, and processes that it
// starts are in all of them. There is no way into a user namespace for a program with
// several threads: such a container is an error.
func (c *Container) Inside(f func() error) error {
	return mountns.Join(c.Namespace, func() error {
		for _, ns := range c.Others {
			if err := unix.Setns(int(ns.File.Fd()), 0); err != nil {
				return fmt.Errorf("join the container's %s namespace: %w", ns.Kind, err)
			}
		}
		return f()
	})
}

// Init runs libcontainer's init, as which the helper executes itself. It does
// not return.
//
// The init is a fork of the process that libcontainer gives ParentDeathSignal,
// and a fork does not inherit that (prctl(2)): it would wait for its command
// forever, and hold the image, if the helper died. A helper that died before this
// does not answer, and the init ends.
func Init() {
	runtime.LockOSThread() // the kernel keeps the signal for each thread
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	libcontainer.Init()
}

// Start starts the container of a bundle that was made on this thread, which
// must be in a private mount namespace, and runs the hooks.
func Start(b *bundle.Bundle, id string, hooks []hook.Hook) (*Container, error) {
	// libcontainer warns of what is meant here: no cgroups, and hooks that its
	// state file cannot hold.
	logrus.SetOutput(io.Discard)
	if err := hideCgroups(); err != nil {
		return nil, err
	}
	var hookErr error
	config, err := libcontainerConfig(b, functionHooks(hooks, b.Dir, &hookErr))
	if err != nil {
		return nil, err
	}
	c, err := libcontainer.Create(filepath.Join(b.Dir, "state"), id, config)
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	builder, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("start container: %w", errors.Join(err, c.Destroy()))
	}
	taken, err := startInit(c, b, builder)
	if hookErr != nil {
		err = fmt.Errorf("start container: %w", hookErr) // libcontainer's is this one in more words
	}
	if err == nil {
		taken.Others, err = others(b.Spec, taken.init)
	}
	if err == nil && has(b.Spec, specs.PIDNamespace) {
		err = execute(filepath.Join(b.Dir, "state", id, "exec.fifo"))
	}
	if err == nil {
		err = started(c, b.Dir, hooks)
	}
	if err != nil {
		return nil, errors.Join(err, keep(builder), c.Destroy())
	}
	return taken, nil
}

// started lets hooks act on the complete container.
func started(c *libcontainer.Container, bundle string, hooks []hook.Hook) error {
	for _, h := range hooks {
		s, ok := h.(hook.Starter)
		if !ok {
			continue
		}
		state, err := c.OCIState()
		if err == nil {
			// To libcontainer it is not running: the init waits for a command.
			state.Bundle, state.Status = bundle, specs.StateRunning
			err = s.Started(state)
		}
		if err != nil {
			return fmt.Errorf("start container: hook %s: %w", h.Name(), err)
		}
	}
	return nil
}

// execute lets the init execute its program: a namespace of processes lives as
// long as its first. libcontainer's own function opens the file on a thread that
// is not in this mount namespace.
func execute(fifo string) error {
	f, err := os.Open(fifo)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.ReadAll(f)
	return err
}

// has tells whether the container has a namespace of that type for itself.
func has(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
}

// others opens the namespaces that libcontainer has made, less the one of mounts.
func others(s *specs.Spec, init *libcontainer.Process) ([]Namespace, error) {
	var all []Namespace
	for _, kind := range option.Namespaces {
		if !has(s, spec.NamespaceTypes[kind]) {
			continue
		}
		pid, err := init.Pid()
		if err != nil {
			return nil, err
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			return nil, err
		}
		all = append(all, Namespace{kind, f})
	}
	return all, nil
}

// startInit starts the init, and reads ahead meanwhile.
func startInit(c *libcontainer.Container, b *bundle.Bundle, builder *os.File) (*Container, error) {
	readAhead(b)
	process := initProcess(b.Spec)
	if err := c.Start(process); err != nil {
		return nil, fmt.Errorf("start container: %w", err)
	}
	return take(process, builder)
}

// readAhead reads ahead on a thread beside the caller's, where a processor has
// nothing else to do. It only makes the step faster: nobody waits for it. The
// bundle is closed then.
func readAhead(b *bundle.Bundle) {
	if !coreToSpare() {
		b.Close()
		return
	}
	namespace, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		b.Close()
		return
	}
	go func() {
		defer namespace.Close()
		defer b.Close()
		_ = mountns.Join(namespace, func() error { b.ReadAhead(); return nil })
	}()
}

// keep holds the namespace of a container that could not be started for the life
// of the process, so that another can be tried (Container.builder). A file alone
// would be closed when it is collected.
func keep(namespace *os.File) error {
	_, err := unix.FcntlInt(namespace.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return errors.Join(err, namespace.Close())
}

// hideCgroups makes the thread's view of the cgroup hierarchies read-only.
func hideCgroups() error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	err := unix.MountSetattr(-1, "/sys/fs/cgroup", unix.AT_RECURSIVE, &attr)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		err = remountCgroups()
	}
	if err != nil {
		return fmt.Errorf("make /sys/fs/cgroup read-only: %w", err)
	}
	return nil
}

// remountCgroups serves kernels before 5.12, which have no mount_setattr(2).
func remountCgroups() error {
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line) // proc(5): the fifth is the mount point
		if len(fields) < 5 || !strings.HasPrefix(fields[4]+"/", "/sys/fs/cgroup/") {
			continue
		}
		if err := unix.Mount("", fields[4], "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	return nil
}

// libcontainerConfig translates the specification less the mounts that the
// bundle has already.
func libcontainerConfig(b *bundle.Bundle, hooks configs.HookList) (*configs.Config, error) {
	rest := *b.Spec
	// The bundle's root is read-only already if it shall be. libcontainer would
	// take nosuid and nodev away when it makes it so.
	rest.Root = &specs.Root{Path: b.Spec.Root.Path}
	// Tasks join the user namespace, if there is one; mounts are the host's root's.
	rest.Linux = &specs.Linux{RootfsPropagation: b.Spec.Linux.RootfsPropagation}
	for _, n := range b.Spec.Linux.Namespaces {
		if n.Type != specs.UserNamespace {
			rest.Linux.Namespaces = append(rest.Linux.Namespaces, n)
		}
	}
	// The bundle's /dev once more: libcontainer fills a /dev that is no mount.
	dev, err := b.ShowDevAgain()
	if err != nil {
		return nil, err
	}
	rest.Mounts = []specs.Mount{{Destination: "/dev", Source: dev, Type: "bind", Options: []string{"rbind", "rslave"}}}
	for _, m := range b.Spec.Mounts {
		if spec.SystemMount(m) {
			rest.Mounts = append(rest.Mounts, m)
		}
	}
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:      "brolga",
		Spec:            &rest,
		RootlessCgroups: true,
	})
	if err != nil {
		return nil, fmt.Errorf("translate config.json: %w", err)
	}
	// The helper's death ends its container.
	config.ParentDeathSignal = int(unix.SIGKILL)
	config.Hooks = configs.Hooks{configs.CreateRuntime: hooks}
	return config, nil
}

// functionHooks wraps actors for libcontainer, which runs them in this process. It
// believes that the bundle is the working directory.
func functionHooks(hooks []hook.Hook, bundle string, failed *error) configs.HookList {
	var list configs.HookList
	for _, h := range hooks {
		a, ok := h.(hook.Actor)
		if !ok {
			continue
		}
		list = append(list, configs.NewFunctionHook(func(state *specs.State) error {
			state.Bundle = bundle
			if err := a.Runtime(state); err != nil {
				*failed = fmt.Errorf("hook %s: %w", h.Name(), err)
			}
			return *failed
		}))
	}
	return list
}

func initProcess(s *specs.Spec) *libcontainer.Process {
	none := configs.Capabilities{}
	noNewPrivileges := s.Process.NoNewPrivileges
	p := &libcontainer.Process{
		Init: true,
		Args: s.Process.Args,
		Env:  s.Process.Env,
		// libcontainer makes this directory as root, also where it is one of the
		// host's. The bundle has made p.Cwd where it may.
		Cwd:             "/",
		Capabilities:    &none,
		NoNewPrivileges: &noNewPrivileges,
		LogLevel:        "4", // logrus: info
	}
	if has(s, specs.PIDNamespace) {
		p.Args, p.Env = []string{spec.Launcher, "reap"}, nil
		p.UID, p.GID, p.AdditionalGroups = owner(s)
	}
	return p
}

// owner returns the identity, on the host, of the container's processes.
func owner(s *specs.Spec) (uid, gid int, groups []int) {
	u := s.Process.User
	for _, g := range u.AdditionalGids {
		groups = append(groups, int(g))
	}
	if len(s.Linux.UIDMappings) > 0 {
		return int(s.Linux.UIDMappings[0].HostID), int(s.Linux.GIDMappings[0].HostID), groups
	}
	return int(u.UID), int(u.GID), groups
}

// take opens what remains of the container once its init is gone.
func take(init *libcontainer.Process, builder *os.File) (*Container, error) {
	pid, err := init.Pid()
	if err != nil {
		return nil, fmt.Errorf("find the container's init: %w", err)
	}
	taken := &Container{init: init, builder: builder}
	for _, part := range []struct {
		file  **os.File
		path  string
		flags int
	}{
		{&taken.Namespace, fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY},
		{&taken.Root, fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH | unix.O_DIRECTORY},
	} {
		if *part.file, err = os.OpenFile(part.path, part.flags, 0); err != nil {
			return nil, fmt.Errorf("open the started container: %w", err)
		}
	}
	return taken, nil
}

// WithBuilder runs f on a thread in the namespace that Start was called in.
func (c *Container) WithBuilder(f func() error) error { return mountns.Join(c.builder, f) }

// End kills the init, which waits for a command it never gets. It is called on
// the thread that started it; should the thread end first, the kernel kills the
// init. Nothing else is there to be undone: what libcontainer has noted is on the
// bundle's tmpfs, and there are no cgroups.
func (c *Container) End() error {
	if c.init == nil { // it is another step's
		return nil
	}
	if err := c.init.Signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("end the container's init: %w", err)
	}
	_, _ = c.init.Wait() // its status says that it was killed
	return nil
}
