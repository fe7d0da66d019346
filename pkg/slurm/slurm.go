// SPDX-License-Identifier: Apache-2.0

// Package slurm knows the facts of one job step and the names of the variables
// that Slurm and the process managers set.
package slurm

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/brolga-hpc/brolga/pkg/wire"
)

// Step is what Slurm says about a job step on one node. On the submitting side
// only User and Env are known.
type Step struct {
	JobID, StepID uint32
	// Node is the name slurmd runs under, SLURMD_NODENAME.
	Node string
	// NodeCount is the number of the step's nodes, of a heterogeneous step the number
	// of its component's.
	NodeCount uint32
	// Tasks is the number of tasks on this node.
	Tasks uint32
	// NodeID is the node's place among those of the step, from zero, and Restart
	// how often the job was requeued.
	NodeID, Restart uint32
	// UID, GID and Groups are the job's identity; Groups holds all
	// supplementary groups.
	UID, GID uint32
	Groups   []uint32
	// Script is the path of the batch script in slurmd's spool directory, empty
	// in steps that are not the batch step.
	Script string
	// MultiProg tells, on the submitting side only, that srun was called with
	// --multi-prog.
	MultiProg bool
	// Command is the program of the step as the user named it, empty where that
	// is not known.
	Command string
	// TmpFS is where Slurm makes files for a step on this node (slurm.conf(5)),
	// empty where that is not known.
	TmpFS string
	// Env is the environment of the step, as NAME=VALUE.
	Env []string
	// Secret is what srun made for the helpers of the step, none unless an option
	// needs it. It comes from the user, who may send anything.
	Secret Secret `json:"-"`
	// Sync is the value of [SyncVariable], empty where the step's nodes do not wait.
	Sync string `json:"-"`

	addresses string // the value of [AddressesVariable]
}

// ID names the step on its node in file names and messages.
func (s Step) ID() string { return fmt.Sprintf("%d.%s", s.JobID, stepName(s.StepID)) }

// StartsSteps tells whether the step is a batch script or the shell of salloc.
func (s Step) StartsSteps() bool { return s.StepID == batchStep || s.StepID == interactiveStep }

// Step numbers with a meaning of their own (slurm/slurm.h).
const (
	batchStep       = 0xfffffffb
	interactiveStep = 0xfffffffa
)

func stepName(id uint32) string {
	switch id {
	case batchStep:
		return "batch"
	case interactiveStep:
		return "interactive"
	}
	return strconv.FormatUint(uint64(id), 10)
}

// Getenv returns the value of a variable of the step.
func (s Step) Getenv(name string) (string, bool) { return Getenv(s.Env, name) }

// Getenv returns the value of a variable in an environment, as NAME=VALUE; of a
// variable set twice the first, as getenv(3) does.
func Getenv(env []string, name string) (string, bool) {
	for _, entry := range env {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// FromRecords reads the facts from a message of the shim and returns the
// records that are not about the step.
func FromRecords(records []wire.Record) (Step, []wire.Record, error) {
	var s Step
	var rest []wire.Record
	var errs []error
	for _, r := range records {
		switch r.Key {
		case "job":
			errs = append(errs, parse(r, &s.JobID))
		case "step":
			errs = append(errs, parse(r, &s.StepID))
		case "nodes":
			errs = append(errs, parse(r, &s.NodeCount))
		case "tasks":
			errs = append(errs, parse(r, &s.Tasks))
		case "node_id":
			errs = append(errs, parse(r, &s.NodeID))
		case "restart":
			errs = append(errs, parse(r, &s.Restart))
		case "uid":
			errs = append(errs, parse(r, &s.UID))
		case "gid":
			errs = append(errs, parse(r, &s.GID))
		case "group":
			var gid uint32
			errs = append(errs, parse(r, &gid))
			s.Groups = append(s.Groups, gid)
		case "node":
			s.Node = r.Value
		case "script":
			s.Script = r.Value
		case "command":
			s.Command = r.Value
		case "tmp_fs":
			s.TmpFS = r.Value
		case "env":
			s.Env = append(s.Env, r.Value)
		default:
			rest = append(rest, r)
		}
	}
	errs = append(errs, s.takeShared())
	return s, rest, errors.Join(errs...)
}

func parse(r wire.Record, into *uint32) error {
	n, err := strconv.ParseUint(r.Value, 10, 32)
	if err != nil {
		return fmt.Errorf("internal error: record %s=%q is not a number", r.Key, r.Value)
	}
	*into = uint32(n)
	return nil
}

// MultiProg tells whether srun was called with --multi-prog. getopt_long(3)
// takes any abbreviation that is unique.
func MultiProg(args []string) bool {
	const option, shortest = "--multi-prog", "--mu"
	return slices.ContainsFunc(args, func(arg string) bool {
		return strings.HasPrefix(arg, shortest) && strings.HasPrefix(option, arg)
	})
}

// owned are prefixes of variables that belong to Slurm or to the process
// manager that started the task. An image must not change them: a task with a
// wrong rank or PMI descriptor hangs or harms its job. Our own decide what
// steps that a task starts run in.
var owned = []string{
	"SLURM_", "SLURMD_", "PMI_", "PMIX_", "PMI2_", "_SLURM_", "SPANK_",
	"BROLGA_CONTAINER_", "BROLGA_ENVIRONMENT", "BROLGA_PIN", "BROLGA_STEP_",
}

// Owns tells whether the variable is Slurm's or a process manager's.
func Owns(variable string) bool {
	for _, prefix := range owned {
		if strings.HasPrefix(variable, prefix) {
			return true
		}
	}
	return false
}

// Settable tells whether users may set the variable for their tasks: those that
// tell a PMIx client which of its modules to use are theirs.
func Settable(variable string) bool {
	return !Owns(variable) || strings.HasPrefix(variable, "PMIX_MCA_")
}

// OfTask tells whether a variable belongs to one task of a step, or to how a process
// manager has started it, so that another process must not have it.
func OfTask(variable string) bool {
	for _, prefix := range []string{"PMI_", "PMIX_", "PMI2_"} {
		if strings.HasPrefix(variable, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"SLURM_PROCID", "SLURM_LOCALID", "SLURM_TASK_PID", "SLURM_GTIDS"}, variable)
}

// limitPrefix begins the variables in which srun sends the limits of a step, as
// numbers (srun(1), --propagate). slurmstepd sets them and takes those, and a few
// others that are for it alone, out of the environment.
const limitPrefix = "SLURM_RLIMIT_"

// Limits returns the limits in a step's environment: NOFILE, CORE and so on.
func Limits(env []string) map[string]uint64 {
	all := map[string]uint64{}
	for _, entry := range env {
		rest, ok := strings.CutPrefix(entry, limitPrefix)
		name, text, _ := strings.Cut(rest, "=")
		if value, err := strconv.ParseUint(text, 10, 64); ok && err == nil {
			all[name] = value
		}
	}
	return all
}

// ForSlurm tells whether a variable is for slurmstepd alone, which takes it from the
// tasks.
func ForSlurm(variable string) bool {
	return strings.HasPrefix(variable, limitPrefix) || variable == "SLURM_UMASK" || variable == "SLURM_PRIO_PROCESS"
}

// ValidVariable tells whether name can be the name of an environment variable:
// not empty, without "=" and control characters (environ(7)).
func ValidVariable(name string) bool {
	return name != "" && strings.IndexFunc(name, func(r rune) bool { return r == '=' || unicode.IsControl(r) }) < 0
}
