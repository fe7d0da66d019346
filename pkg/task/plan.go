// SPDX-License-Identifier: Apache-2.0

// Package task answers the tasks of a step: each gets the container's mount
// namespace and a plan, which is data, because the code that carries it out is
// C between fork and execve. spank/PROTOCOL.md describes both messages.
package task

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// NewPlan decides where tasks start, how their environment changes and what is
// executed in front of their command, and returns the plan. Entrypoint is the
// image's, env the step's environment, cwd its open working directory on the
// host, numbers what hooks change in each task's.
func NewPlan(c *container.Container, s *specs.Process, numbers []hook.Numbers, r request.Request, user identity.User, entrypoint, env []string, cwd *os.File) ([]wire.Record, error) {
	plan, err := workdir(c.Root, s.Cwd, r, user, cwd)
	if err != nil {
		return nil, err
	}
	return slices.Concat(plan, pmix(r), launchers(r, env), renumber(numbers), environment(s.Env, r.SiteEnv, r.Env, env), forget(r, env), launch(r, entrypoint)), nil
}

// pmix sets what PMIx clients need to know; the user's own settings come later.
func pmix(r request.Request) []wire.Record {
	if r.PMIx == nil {
		return nil
	}
	var plan []wire.Record
	for _, entry := range r.PMIx.Env {
		plan = append(plan, wire.Record{Key: "set", Value: entry})
	}
	return plan
}

// launchers has launchers of MPI go from node to node by SSH, where there is SSH. By
// themselves they take srun for that where they find themselves in a job, and images
// have none. What the step's environment or the image says stays, unless it is what
// Slurm since 23.11 sets to have them take srun (common/env.c, set_env_from_opts).
func launchers(r request.Request, env []string) []wire.Record {
	if r.SSH == nil {
		return nil
	}
	var plan []wire.Record
	for _, entry := range []string{
		"OMPI_MCA_plm=rsh",          // Open MPI to release 4
		"PRTE_MCA_plm=ssh",          // later ones
		"HYDRA_LAUNCHER=ssh",        // MPICH, MVAPICH
		"I_MPI_HYDRA_BOOTSTRAP=ssh", // Intel
	} {
		name, _, _ := strings.Cut(entry, "=")
		if value, given := slurm.Getenv(env, name); !given || slurms(name, value) {
			plan = append(plan, wire.Record{Key: "set", Value: entry})
		}
	}
	// Arguments for srun, which ssh would be given.
	for _, name := range []string{"HYDRA_BOOTSTRAP", "HYDRA_LAUNCHER_EXTRA_ARGS", "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS"} {
		if value, _ := slurm.Getenv(env, name); slurms(name, value) {
			plan = append(plan, wire.Record{Key: "unset", Value: name})
		}
	}
	return plan
}

// slurms tells whether the variable is as Slurm sets it for launchers.
func slurms(name, value string) bool {
	if strings.HasSuffix(name, "_EXTRA_ARGS") {
		return value == "--external-launcher"
	}
	return strings.HasSuffix(name, "_BOOTSTRAP") && value == "slurm"
}

// renumber changes lists of numbers, of which each task has its own. It comes first:
// the user's own words stay.
func renumber(numbers []hook.Numbers) []wire.Record {
	var plan []wire.Record
	for _, n := range numbers {
		var pairs []string
		for _, old := range slices.Sorted(maps.Keys(n.New)) {
			pairs = append(pairs, fmt.Sprintf("%d:%d", old, n.New[old]))
		}
		plan = append(plan, wire.Record{Key: "renumber", Value: n.Variable + "=" + strings.Join(pairs, ",")})
	}
	return plan
}

// launch has the launcher executed in front of the command, if it is needed.
func launch(r request.Request, entrypoint []string) []wire.Record {
	var plan []wire.Record
	if r.EntrypointLog {
		text := "entrypoint: " + strings.Join(entrypoint, " ")
		switch {
		case !r.Entrypoint:
			text = "no entrypoint is run: --" + option.Entrypoint + " was not given"
		case len(entrypoint) == 0:
			text = "no entrypoint is run: the image has none"
		}
		plan = append(plan, wire.Record{Key: "notice", Value: fault.Printable(text)})
	}
	if !r.NeedsLauncher(entrypoint) {
		return plan
	}
	plan = append(plan, wire.Record{Key: "launch", Value: spec.Launcher})
	if r.Unshares("pid") {
		plan = append(plan, wire.Record{Key: "fork", Value: "1"})
	}
	if r.Saves() {
		plan = append(plan, wire.Record{Key: "save", Value: "1"})
	}
	if !r.Entrypoint {
		return plan
	}
	for _, word := range entrypoint {
		plan = append(plan, wire.Record{Key: "entrypoint", Value: word})
	}
	return plan
}

// Tell returns the plan with the messages that a user wants to hear.
func Tell(plan []wire.Record, v request.Verbosity) []wire.Record {
	switch v {
	case request.Quiet:
		return slices.DeleteFunc(plan, func(r wire.Record) bool { return r.Key == "warning" || r.Key == "notice" })
	case request.Verbose:
		for i, r := range plan {
			if r.Key == "debug" || r.Key == "info" {
				plan[i].Key = "notice"
			}
		}
	}
	return plan
}

// environment returns the changes to a task's environment. All of the step's
// variables stay; the image's win, except those of Slurm and those the user
// named; then come the site's changes, and the user's.
func environment(image []string, site []request.EnvChange, edits []option.EnvEdit, step []string) []wire.Record {
	var plan []wire.Record
	keep := map[string]bool{}
	for _, e := range edits {
		if _, ok := slurm.Getenv(step, e.Name); ok && e.Value == nil && !e.Remove {
			keep[e.Name] = true
		}
	}
	for _, entry := range image {
		name, _, ok := strings.Cut(entry, "=")
		if !ok || !slurm.ValidVariable(name) || slurm.Owns(name) || keep[name] {
			continue
		}
		plan = append(plan, wire.Record{Key: "set", Value: entry})
	}
	for _, change := range site {
		plan = append(plan, apply(change, plan, step))
	}
	for _, e := range edits {
		switch {
		case e.Value != nil:
			plan = append(plan, wire.Record{Key: "set", Value: e.Name + "=" + *e.Value})
		case e.Remove:
			plan = append(plan, wire.Record{Key: "unset", Value: e.Name})
		}
	}
	return plan
}

// apply returns the record for a change of the site's. The value before it is the
// plan's latest or, where that has none, the step's.
func apply(change request.EnvChange, plan []wire.Record, step []string) wire.Record {
	if change.How == request.EnvUnset {
		return wire.Record{Key: "unset", Value: change.Name}
	}
	before, _ := slurm.Getenv(step, change.Name)
	for _, r := range plan {
		if value, found := strings.CutPrefix(r.Value, change.Name+"="); found && r.Key == "set" {
			before = value
		}
	}
	return wire.Record{Key: "set", Value: change.Name + "=" + change.Apply(before)}
}

// Apply returns what the plan makes of a task's environment, and where it starts.
func Apply(plan []wire.Record, env []string) (changed []string, dir string) {
	changed, dir = slices.Clone(env), "/"
	for _, r := range plan {
		switch name, _, _ := strings.Cut(r.Value, "="); r.Key {
		case "set", "unset":
			changed = slices.DeleteFunc(changed, func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
			if r.Key == "set" {
				changed = append(changed, r.Value)
			}
		case "workdir":
			dir = r.Value
		}
	}
	return changed, dir
}

// forget removes what would put the steps that a task starts in a container.
func forget(r request.Request, step []string) []wire.Record {
	var names []string
	switch {
	case r.Forget:
		names = option.JobVariables()
	case r.Save != nil: // is the step's own
		names = option.VariablesOf(option.Save)
	}
	var plan []wire.Record
	for _, name := range names {
		if _, ok := slurm.Getenv(step, name); ok {
			plan = append(plan, wire.Record{Key: "unset", Value: name})
		}
	}
	return plan
}

// workdir decides where tasks start: where the user said; else in the step's
// working directory, if the container shows that same directory; else where
// the image says.
func workdir(root *os.File, image string, r request.Request, user identity.User, cwd *os.File) ([]wire.Record, error) {
	if r.Workdir != "" {
		if err := checkDirectory(root, r.Workdir, user, nil); err != nil {
			return nil, fault.WithHint(fmt.Errorf("enter working directory %s: %w", r.Workdir, err),
				"--"+option.Workdir+" names a directory in the container")
		}
		return startIn(r.Workdir), nil
	}
	if r.WorkdirFromJob {
		path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", cwd.Fd()))
		if err == nil && checkDirectory(root, path, user, cwd) == nil {
			return startIn(path), nil
		}
	}
	if err := checkDirectory(root, image, user, nil); err != nil {
		warning := fmt.Sprintf("cannot enter the image's working directory %s (%v); starting in /", image, err)
		return append(startIn("/"), wire.Record{Key: "warning", Value: warning}), nil
	}
	return startIn(image), nil
}

func startIn(path string) []wire.Record { return []wire.Record{{Key: "workdir", Value: path}} }

// checkDirectory tells why the user cannot work in a directory of the
// container, or that it is not the same as another one.
func checkDirectory(root *os.File, path string, user identity.User, same *os.File) error {
	return user.Do(func() error {
		f, err := pathrs.OpenatInRoot(root, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return errors.New("no such directory in the container")
		case errors.Is(err, fs.ErrPermission):
			return errors.New("permission denied")
		case err != nil:
			return err
		}
		defer f.Close()
		return checkOpenDirectory(f, same)
	})
}

func checkOpenDirectory(f, same *os.File) error {
	var st, want unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errors.New("not a directory")
	}
	if err := unix.Faccessat(int(f.Fd()), ".", unix.X_OK, unix.AT_EACCESS); err != nil {
		return errors.New("permission denied")
	}
	if same == nil {
		return nil
	}
	if err := unix.Fstat(int(same.Fd()), &want); err != nil {
		return err
	}
	if st.Dev != want.Dev || st.Ino != want.Ino {
		return errors.New("another directory in the container")
	}
	return nil
}
