// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"os"
	"slices"

	"github.com/brolga-hpc/brolga/pkg/bundle"
	"github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/trust"
	"github.com/brolga-hpc/brolga/pkg/userfile"
	"github.com/brolga-hpc/brolga/pkg/userns"
)

// makeBundle mounts the root file system and writes the specification. What the container
// writes is kept in a file, if there is one; users is the user namespace, if it has its own.
func (r *run) makeBundle(img image.Image, hooks []hook.Hook, kept, users *os.File) (*bundle.Bundle, error) {
	step := r.request
	step.Annotations = r.annotations(img)
	b, err := bundle.Create(bundle.Params{
		RunDir:     r.runDir(),
		Request:    step,
		Image:      img.File,
		Way:        img.Way,
		Squashfuse: r.Step.Config.Squashfuse,
		Sandbox:    r.Step.Config.Sandbox,
		Servers:    r.Servers,
		Join:       r.joinStep(r.firstPID),

		Squashfs: userfile.PolicyOf(r.Step.Config),
		Kept:     kept,
		ImageConfig: spec.Image{
			Env:        img.Meta.Config.Env,
			WorkingDir: img.Meta.Config.WorkingDir,
			Entrypoint: img.Meta.Config.Entrypoint,
			Digest:     img.Meta.Digest,
		},
		Passwd:  img.Meta.Passwd,
		Group:   img.Meta.Group,
		User:    r.user(),
		Account: r.Step.Account,
		Groups:  r.Step.Groups,
		Hooks:   hooks,

		UserNamespace: users,
		Rootless:      r.rootless(),
		Terminal:      r.terminal(),
	})
	if err != nil {
		return nil, err
	}
	r.label(b)
	r.laps.hooks(b.Findings.Laps...)
	r.laps.add("bundle")
	return b, nil
}

// label says in the container what steps need to know that join it.
func (r *run) label(b *bundle.Bundle) {
	step, p := r.request, b.Process()
	l := container.Label{Node: r.Step.Node, Step: step.Step, UID: step.UID, Image: step.Image.String(), Workdir: p.Cwd, Env: p.Env, Kinds: step.Unshare}
	if step.Named != nil {
		l.Name, l.Job = step.Named.Name, step.Named.Job
	}
	if step.RemapRoot {
		l.Kinds = slices.Concat(l.Kinds, []string{"user"})
	}
	if text, err := l.Marshal(); err == nil {
		b.Label(text)
	}
}

// makeUserNamespace makes the namespace of a request that remaps root, or none.
func (r *run) makeUserNamespace() (*os.File, error) {
	if !r.request.RemapRoot {
		return nil, nil
	}
	return userns.Make(r.request.UID, r.request.GID, config.LauncherPath(), "hold")
}

// makeRunDir makes the directory of locks and mount points, where no other user may do
// anything: below one of theirs root would open what they put there.
func (e *Engine) makeRunDir() error {
	if e.rootless() {
		return nil // it is made with the container
	}
	if err := trust.MakeAll(e.Step.Config.RunDir, 0o755); err != nil {
		return fault.WithHint(fmt.Errorf("run_dir %s: %w", e.Step.Config.RunDir, err),
			"an administrator sets run_dir to a directory below those that are root's alone")
	}
	return nil
}
