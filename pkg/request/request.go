// SPDX-License-Identifier: Apache-2.0

// Package request turns what a user asked for into what a job step needs.
//
// [Resolve] runs twice for each step: where it is submitted, to refuse a
// mistake before the job starts, and on each compute node, which acts on the
// result. It is a pure function of its arguments, so both runs agree where both
// nodes are configured alike; the compute node has the last word. Code that
// receives a [Request] does not look at options, the site configuration's
// defaults or the environment again.
//
// # Precedence
//
// Each setting is taken from the first source that has it:
//
//  1. the command line, srun --container-...
//  2. the environment definition file, srun --environment=...
//  3. the BROLGA_CONTAINER_... variable in the step's environment
//  4. the site configuration
//  5. [config.Default]
//
// Mounts, devices, variables and annotations of the first two add up.
//
// # Trust
//
// Options come from the user. Resolve checks their form; it cannot check that a
// path is still what it was. Code with privilege opens paths as the user.
package request

import (
	"slices"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// Request is what one job step needs on one node, fully decided. It does not change
// (change.go).
type Request struct {
	Identity
	Source
	Filesystem
	Environment
	Program
	Namespaces
	Hooks
	Output
	Nodes
}

// Identity is the step, and its user.
type Identity struct {
	// Step names the step for messages and the container.
	Step string
	// Tasks is the number of tasks on this node, 0 where it is not known yet.
	Tasks uint32
	// UID, GID and Groups are the job's identity.
	UID, GID uint32
	Groups   []uint32
}

// Source is the image, and how it is found.
type Source struct {
	// Image is the image to run, by digest and absolute path once it was resolved.
	Image ref.Ref
	asked ref.Ref // how the user wrote it
	// Pull is one of [option.Pulls], Platform what the image is chosen for, or
	// empty: the machine it is pulled on.
	Pull, Platform string
}

// Filesystem is what the tasks see as their files, and what is kept of these.
type Filesystem struct {
	// Mounts are made in this order, the site's before the user's.
	Mounts []Mount
	// Home says whether to mount the home directory.
	Home Home
	// Devices are glob patterns of the host's device files to show.
	Devices []string
	// Workdir is where tasks start, an absolute path in the container, or empty:
	// then WorkdirFromJob decides whether the job's directory comes first.
	Workdir        string
	WorkdirFromJob bool
	// Writable says whether the root file system may be written to, and
	// TmpfsSize how much, in the words of tmpfs(5).
	Writable  bool
	TmpfsSize string
	// Named is the container that is kept or joined, or nil.
	Named *Named `json:",omitempty"`
	// Save is where the root file system is saved when the step ends, or nil.
	Save *Save `json:",omitempty"`
}

// Environment is what the tasks find in their variables.
type Environment struct {
	// SiteEnv are the site's changes to variables, after the image's, and Env the
	// user's exceptions to "the image's variables win", after those.
	SiteEnv []EnvChange `json:",omitempty"`
	Env     []option.EnvEdit
	// Forget takes from the tasks the variables that would put the steps that they start
	// in a container.
	Forget bool
	// XAuthority is the file with the key to the step's X display, or empty.
	XAuthority string `json:",omitempty"`
}

// Program is what the tasks execute.
type Program struct {
	// Entrypoint says whether to run the image's entrypoint in front of the
	// command, and EntrypointLog whether to say so.
	Entrypoint, EntrypointLog bool
	// Command is the program that tasks execute, as far as it is known: it is
	// read ahead, and the site's hooks may depend on it.
	Command string
	// Script is the batch script in slurmd's spool directory, or empty.
	Script string
}

// Namespaces are those that the container has for itself besides its mounts.
type Namespaces struct {
	// RemapRoot makes the user root in a user namespace.
	RemapRoot bool
	// Unshare lists the others, as [option.Namespaces] names and orders them.
	Unshare []string
}

// Hooks is what hooks act on.
type Hooks struct {
	// Accelerators are devices with what belongs to them, or nil.
	Accelerators *Accelerators
	// MPI is the MPI of the host that replaces the image's, or nil.
	MPI *MPI
	// PMIx is what the step's PMIx clients need, or nil.
	PMIx *PMIx `json:",omitempty"`
	// Glibc says whether the host's C library replaces an older one of the image.
	Glibc Glibc
	// MountSets are the sets of the site that the step gets, or may get because of
	// an annotation or of what is in the image.
	MountSets []MountSet
	// SSH has the limits of the SSH servers in the containers of the step, or is nil
	// if there are none.
	SSH *config.SSH `json:",omitempty"`
	// Sync is how to wait for the other nodes of the step, or nil.
	Sync *config.Sync `json:",omitempty"`
	// Annotations are for hooks of the site.
	Annotations map[string]string
}

// Output is what the user is told.
type Output struct {
	// DryRun asks the submitting side to show the request and not to submit it.
	DryRun bool
	// Verbosity is what the user wants to hear.
	Verbosity Verbosity
}

// Nodes are the nodes of a step whose helpers speak to each other
// ([Request.SharesSecret]). They are set on these nodes.
type Nodes struct {
	// Secret is what the helpers share, Peers are the nodes, and Own is the index of this
	// one among them.
	Secret slurm.Secret `json:"-"`
	Peers  []slurm.Node `json:"-"`
	Own    int          `json:"-"`
	// Differs says in what Sync is not what it is where the step was submitted.
	Differs string `json:"-"`
}

// SharesSecret tells whether something that the user wants needs the helpers of
// the step to speak to each other.
func (r Request) SharesSecret() bool { return r.SSH != nil || r.Sync != nil }

// Save says where to save a root file system.
type Save struct {
	// Path is absolute, or begins in the step's working directory. On the submitting
	// side it is as the user wrote it.
	Path string
	// Here tells whether this node does it.
	Here bool
}

// Accelerators are devices that come with libraries and variables.
type Accelerators struct {
	// Names are those of the CDI devices that the user wants.
	Names []string
	// GPUs are those that Slurm gave to the step.
	GPUs slurm.GPUs
	// Capabilities are the parts of NVIDIA's driver that the user wants, or "".
	Capabilities string
	// CDI and GPU are the site's settings.
	CDI config.CDI
	GPU config.GPU
}

// Named is a container that is known by a name: of the user's, or, with Step, that
// of a job step.
type Named struct {
	Name string
	// How is one of [option.NameAuto] and the like.
	How string
	// Step says that Name is a step, JOB.STEP, whose container is joined.
	Step bool
	// Job is the job that the name belongs to, with the number of times it was
	// requeued; 0 is all of the user's.
	Job, Restart uint32
	// Node is the name of the node.
	Node string
}

// Home says whether the home directory is mounted.
type Home string

// The values of [Home]. With HomeIfPresent a missing home directory is left out
// without a word, because the user did not ask for it.
const (
	HomeNo        Home = "no"
	HomeIfPresent Home = "if-present"
	HomeYes       Home = "yes"
)

// Verbosity says how much a user is told.
type Verbosity string

// The values of [Verbosity].
const (
	Quiet   Verbosity = "quiet"
	Normal  Verbosity = "normal"
	Verbose Verbosity = "verbose"
)

// Saves tells whether this node saves the container.
func (r Request) Saves() bool { return r.Save != nil && r.Save.Here }

// Unshares tells whether the container has a namespace of that kind for itself.
func (r Request) Unshares(kind string) bool { return slices.Contains(r.Unshare, kind) }

// NeedsLauncher tells whether Slurm shall execute the launcher in front of the
// command, given the image's entrypoint.
func (r Request) NeedsLauncher(entrypoint []string) bool {
	return r.Entrypoint && len(entrypoint) > 0 || r.Unshares("pid") || r.Saves()
}

// NeedsTask tells whether the container depends on what is known only once a
// task exists: the step's working directory, or Slurm's PMIx server. One with a name
// cannot be made twice, as it is where the first attempt was in the wrong
// namespace.
func (r Request) NeedsTask() bool { return r.PMIx != nil || r.Named != nil || r.relativeSources() }
