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
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// Request is what one job step needs on one node, fully decided.
type Request struct {
	// Step names the step for messages and the container.
	Step string
	// Tasks is the number of tasks on this node, 0 where it is not known yet.
	Tasks uint32
	// UID, GID and Groups are the job's identity.
	UID, GID uint32
	Groups   []uint32
	// Image is the image to run, by digest and absolute path once it was resolved.
	Image ref.Ref
	asked ref.Ref // how the user wrote it
	// Mounts are made in this order, the site's before the user's.
	Mounts []Mount
	// Home tells whether to mount the home directory.
	Home Home
	// Devices are glob patterns of the host's device files to show.
	Devices []string
	// Accelerators are devices with what belongs to them, or nil.
	Accelerators *Accelerators
	// Workdir is where tasks start, an absolute path in the container, or empty:
	// then WorkdirFromJob decides whether the job's directory comes first.
	Workdir        string
	WorkdirFromJob bool
	// Writable tells whether the root file system may be written to, and
	// TmpfsSize how much, in the words of tmpfs(5).
	Writable  bool
	TmpfsSize string
	// SiteEnv are the site's changes to variables, after the image's, and Env the
	// user's exceptions to "the image's variables win", after those.
	SiteEnv []EnvChange `json:",omitempty"`
	Env     []option.EnvEdit
	// Entrypoint tells whether to run the image's entrypoint in front of the
	// command, and EntrypointLog whether to say so.
	Entrypoint, EntrypointLog bool
	// Forget takes from the tasks what would put the steps that they start in a
	// container.
	Forget bool
	// RemapRoot makes the user root in a user namespace.
	RemapRoot bool
	// Unshare lists the other namespaces that the container has for itself, as
	// [option.Namespaces] names and orders them.
	Unshare []string
	// MPI is the MPI of the host that replaces the image's, or nil.
	MPI *MPI
	// PMIx is what the step's PMIx clients need, or nil.
	PMIx *PMIx `json:",omitempty"`
	// XAuthority is the file with the key to the step's X display, or empty.
	XAuthority string `json:",omitempty"`
	// Glibc tells whether the host's C library replaces an older one of the image.
	Glibc Glibc
	// MountSets are the sets of the site that the step gets, or may get because of
	// an annotation or of what is in the image.
	MountSets []MountSet
	// Named is the container that is kept or joined, or nil.
	Named *Named `json:",omitempty"`
	// SSH has the limits of the SSH servers in the containers of the step, or is nil
	// if there are none.
	SSH *config.SSH `json:",omitempty"`
	// Save is where the root file system is saved when the step ends, or nil.
	Save *Save `json:",omitempty"`
	// Sync is how to wait for the other nodes of the step, or nil.
	Sync *config.Sync `json:",omitempty"`
	// Annotations are for hooks.
	Annotations map[string]string
	// Pull is one of [option.Pulls], Platform what the image is chosen for, or
	// empty: the machine it is pulled on.
	Pull, Platform string
	// DryRun asks the submitting side to show the request and not to submit it.
	DryRun bool
	// Verbosity is what the user wants to hear.
	Verbosity Verbosity
	// Command is the program that tasks execute, as far as it is known: it is
	// read ahead, and the site's hooks may depend on it.
	Command string
	// Script is the batch script in slurmd's spool directory, or empty.
	Script string

	// Secret is what the helpers of the step share, Peers are its nodes, and Own the
	// own place among them. They are set on the nodes of steps that want them
	// ([Request.SharesSecret]).
	Secret slurm.Secret `json:"-"`
	Peers  []slurm.Node `json:"-"`
	Own    int          `json:"-"`
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

func verbosity(o option.Set) Verbosity {
	switch {
	case !o.Has(option.Verbose):
		return Normal
	case o.Flag(option.Verbose, false):
		return Verbose
	}
	return Quiet
}

// ErrNoImage means that container options were given without an image.
var ErrNoImage = errors.New("container options are given, but no image")

// Resolve decides what the step needs. All mistakes are reported at once; the
// request that comes with them is good for telling the other nodes of the step.
func Resolve(c config.Config, o option.Set, s slurm.Step) (Request, error) {
	r := Request{
		Step:           s.ID(),
		Tasks:          s.Tasks,
		UID:            s.UID,
		GID:            s.GID,
		Groups:         s.Groups,
		Devices:        c.Container.Devices,
		Writable:       o.Flag(option.Writable, c.Container.Writable),
		TmpfsSize:      c.Container.TmpfsSize,
		WorkdirFromJob: c.Container.Workdir == "job",
		Home:           home(c, o),
		Entrypoint:     o.Flag(option.Entrypoint, c.Container.Entrypoint),
		EntrypointLog:  o.Flag(option.EntrypointLog, false),
		Forget:         s.StartsSteps() && !o.Flag(option.Inherit, c.Container.Inherit),
		RemapRoot:      o.Flag(option.RemapRoot, c.Container.RemapRoot) && s.UID != 0,
		Platform:       o[option.Platform],
		Verbosity:      verbosity(o),
		DryRun:         o.Flag(option.DryRun, false),
		Script:         s.Script,
		PMIx:           pmix(s),
		XAuthority:     xAuthority(s),
		Glibc:          glibc(c, o),
		Command:        s.Command,
	}
	// Who logs in to another node expects it to be there.
	if o.Flag(option.Sync, o.Flag(option.SSH, false)) {
		r.Sync = &c.Sync
	}
	err := errors.Join(
		r.checkUser(c),
		r.resolveName(c, o, s),
		r.resolveImage(c, o, s),
		r.resolveMounts(c, o),
		r.resolveDevices(c, o, s),
		r.resolveWorkdir(o),
		r.resolveSiteEnv(c),
		r.resolveEnv(o),
		r.resolveNamespaces(o),
		r.resolveMPI(c, o),
		r.resolveMountSets(c, o),
		r.resolveSSH(c, o),
		r.resolveAnnotations(o),
		r.resolvePull(o),
		r.resolveSave(o, s),
		r.checkMultiProg(s),
		r.checkPMIx(),
		r.resolveShared(s),
	)
	if err != nil {
		return r.gated(), err
	}
	return r, nil
}

// xAuthority returns the file that the step's environment names, where it has a
// display.
func xAuthority(s slurm.Step) string {
	display, _ := s.Getenv("DISPLAY")
	path, _ := s.Getenv("XAUTHORITY")
	if display == "" || !filepath.IsAbs(path) || isTaken(filepath.Clean(path)) {
		return ""
	}
	return filepath.Clean(path)
}

func home(c config.Config, o option.Set) Home {
	switch {
	case !o.Flag(option.MountHome, c.Container.MountHome):
		return HomeNo
	case o.Has(option.MountHome):
		return HomeYes
	}
	return HomeIfPresent
}

func (r *Request) checkUser(c config.Config) error {
	if r.UID == 0 && !c.Container.AllowRoot {
		return fault.WithHint(errors.New("user root may not run containers on this cluster"),
			"submit the job as an ordinary user, or set container.allow_root in the site configuration")
	}
	return nil
}

func (r *Request) resolveName(c config.Config, o option.Set, s slurm.Step) error {
	text, given := o[option.Name]
	if !given {
		return nil
	}
	name, how, err := option.ParseName(text)
	r.Named = &Named{Name: name, How: how, Step: option.IsStep(name), Node: s.Node}
	if c.Named.Scope == config.ScopeJob {
		r.Named.Job, r.Named.Restart = s.JobID, s.Restart
	}
	return err
}

func (r *Request) resolveWorkdir(o option.Set) error {
	dir, given := o[option.Workdir]
	if !given {
		return nil
	}
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("--%s: %q is not an absolute path", option.Workdir, dir)
	}
	r.Workdir = filepath.Clean(dir)
	return nil
}

func (r *Request) resolveEnv(o option.Set) error {
	text, given := o[option.Env]
	if !given {
		return nil
	}
	edits, err := option.ParseEnv(text)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range edits {
		if (e.Value != nil || e.Remove) && !slurm.Settable(e.Name) {
			errs = append(errs, fmt.Errorf("--%s: %s belongs to Slurm and cannot be set", option.Env, e.Name))
		}
	}
	r.Env = edits
	return errors.Join(errs...)
}

func (r *Request) resolveSave(o option.Set, s slurm.Step) error {
	path, given := o[option.Save]
	if !given {
		return nil
	}
	everywhere, err := option.ParseSave(path)
	if r.Named != nil && (r.Named.Step || r.Named.How == option.NameExec) {
		err = errors.Join(err, fmt.Errorf("--%s: a container that the step only joins cannot be saved", option.Save))
	}
	r.Save = &Save{Path: path}
	if s.Node != "" { // on a node
		job, step, _ := strings.Cut(s.ID(), ".")
		r.Save.Path = strings.NewReplacer("%%", "%", "%j", job, "%s", step, "%n", fmt.Sprint(s.NodeID), "%N", s.Node).Replace(path)
		r.Save.Here = everywhere || s.NodeID == 0
	}
	return err
}

// Saves tells whether this node saves the container.
func (r Request) Saves() bool { return r.Save != nil && r.Save.Here }

// checkMultiProg refuses what works by executing something in front of the
// command: with --multi-prog Slurm before 23.11 shows nobody the commands, and a
// script that works on one cluster shall work on the next.
func (r *Request) checkMultiProg(s slurm.Step) error {
	var errs []error
	if s.MultiProg && r.Entrypoint {
		errs = append(errs, fault.WithHint(fmt.Errorf("--%s cannot be used with --multi-prog", option.Entrypoint),
			"write the entrypoint in front of the commands in the configuration file"))
	}
	if s.MultiProg && r.Save != nil {
		errs = append(errs, fmt.Errorf("--%s cannot be used with --multi-prog", option.Save))
	}
	if s.MultiProg && r.Unshares("pid") {
		errs = append(errs, fmt.Errorf("--%s=pid and --%s cannot be used with --multi-prog", option.Unshare, option.Init))
	}
	return errors.Join(errs...)
}

func (r *Request) resolveNamespaces(o option.Set) error {
	if r.UID == 0 && o.Flag(option.RemapRoot, false) {
		return fmt.Errorf("--%s: user root is root already", option.RemapRoot)
	}
	text := o[option.Unshare]
	if o.Flag(option.Init, false) {
		text = strings.TrimPrefix(text+",pid", ",")
	}
	if text == "" {
		return nil
	}
	var err error
	r.Unshare, err = option.ParseNamespaces(text)
	return err
}

func (r *Request) resolveAnnotations(o option.Set) error {
	text, given := o[option.Annotation]
	if !given {
		return nil
	}
	var err error
	r.Annotations, err = option.ParseAnnotations(text)
	return err
}

// Gated is what can be said of a step without the node's configuration: enough to
// tell the other nodes that it cannot start, the way srun has said they wait. Of a
// step that does not wait it is nothing.
func Gated(s slurm.Step) Request {
	sync, err := config.ParseSync(s.Sync)
	if s.Sync == "" || err != nil {
		return Request{}
	}
	r := Request{Step: s.ID(), Sync: &sync}
	if r.resolveShared(s) != nil {
		return Request{}
	}
	return r.gated()
}

// gated is what is left of a request that cannot be fulfilled: enough to tell the
// other nodes.
func (r *Request) gated() Request {
	if len(r.Peers) == 0 {
		return Request{}
	}
	return Request{Step: r.Step, Sync: r.Sync, Secret: r.Secret, Peers: r.Peers, Own: r.Own}
}

// resolveShared takes over what srun has made for the helpers of the step. Where
// it is submitted there is nothing yet, and a step of one node has nobody to share
// a secret with: its helper makes one itself (package job).
func (r *Request) resolveShared(s slurm.Step) error {
	// Slurm counts no nodes of a batch script.
	if !r.SharesSecret() || s.NodeCount == 0 && !s.StartsSteps() {
		return nil
	}
	peers, own, err := s.Peers()
	if err != nil {
		return fmt.Errorf("find the nodes of the step: %w", err)
	}
	if s.Secret.IsZero() && len(peers) > 1 {
		return fault.WithHint(errors.New("the secret of the step has not come along with it"),
			"start the step with srun, and set variables where srun is called, not with --export; if that does not help, tell the administrator that Brolga differs between nodes")
	}
	r.Peers, r.Own, r.Secret = peers, own, s.Secret
	return nil
}

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
