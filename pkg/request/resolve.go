// SPDX-License-Identifier: Apache-2.0

package request

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/slurm"
)

// ErrNoImage means that container options were given without an image.
var ErrNoImage = errors.New("container options are given, but no image")

// Resolve decides what the step needs. All mistakes are reported at once; the
// request that comes with them is good for telling the other nodes of the step.
func Resolve(c config.Config, o option.Set, s slurm.Step) (Request, error) {
	r := Request{
		Identity:    Identity{Step: s.ID(), Tasks: s.Tasks, UID: s.UID, GID: s.GID, Groups: s.Groups},
		Filesystem:  Filesystem{Devices: c.Container.Devices, Writable: o.Flag(option.Writable, c.Container.Writable), TmpfsSize: c.Container.TmpfsSize, WorkdirFromJob: c.Container.Workdir == "job", Home: home(c, o)},
		Program:     Program{Entrypoint: o.Flag(option.Entrypoint, c.Container.Entrypoint), EntrypointLog: o.Flag(option.EntrypointLog, false), Script: s.Script, Command: s.Command},
		Environment: Environment{Forget: s.StartsSteps() && !o.Flag(option.Inherit, c.Container.Inherit), XAuthority: xAuthority(s)},
		Namespaces:  Namespaces{RemapRoot: o.Flag(option.RemapRoot, c.Container.RemapRoot) && s.UID != 0},
		Source:      Source{Platform: o[option.Platform]},
		Output:      Output{Verbosity: verbosity(o), DryRun: o.Flag(option.DryRun, false)},
		Hooks:       Hooks{PMIx: pmix(s), Glibc: glibc(c, o)},
	}
	// Who logs in to another node expects it to be there.
	if o.Flag(option.Sync, o.Flag(option.SSH, false)) {
		r.Sync = &c.Sync
		if there, err := config.ParseSync(s.Sync); err == nil && s.Sync != "" {
			r.Differs = c.Sync.DiffersFrom(there)
		}
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

func verbosity(o option.Set) Verbosity {
	switch {
	case !o.Has(option.Verbose):
		return Normal
	case o.Flag(option.Verbose, false):
		return Verbose
	}
	return Quiet
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
	r := Request{Identity: Identity{Step: s.ID()}, Hooks: Hooks{Sync: &sync}}
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
	return Request{Identity: Identity{Step: r.Step}, Hooks: Hooks{Sync: r.Sync}, Nodes: Nodes{Secret: r.Secret, Peers: r.Peers, Own: r.Own}}
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
