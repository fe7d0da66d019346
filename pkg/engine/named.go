// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/bundle/rootfs"
	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/source"
	"github.com/brolga-hpc/brolga/pkg/named"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// buildNamed joins the container that the step names, if it runs on the node, or
// starts it. Nobody else does so meanwhile: its name is locked until a task is in
// it and so can be found.
func (e *Engine) buildNamed(ctx context.Context) (*built, error) {
	n := *e.Job.Request.Named
	if n.Step {
		b, err := e.join(n.Name, func(l container.Label) bool { return l.Step == n.Name })
		if errors.Is(err, container.ErrNotRunning) {
			err = fault.WithHint(fmt.Errorf("join step %s: no container of yours runs on node %s in that step", n.Name, n.Node),
				"run the step on the nodes of the other one, for example with --nodelist")
		}
		return b, err
	}
	kept, err := named.Open(e.Job.Config.Named, n, e.user())
	if err != nil {
		return nil, err
	}
	b, err := e.joinOrStart(ctx, kept, n)
	if err != nil {
		return nil, errors.Join(err, kept.Release())
	}
	e.release = sync.OnceFunc(func() { _ = kept.Release() })
	return b, nil
}

// patience is how long the end of a container is waited for whose last process is
// gone.
const patience = 5 * time.Second

// joinOrStart decides by how the name is to be used.
func (e *Engine) joinOrStart(ctx context.Context, kept *named.Container, n request.Named) (*built, error) {
	same := func(l container.Label) bool { return l.Name == n.Name && l.Job == n.Job }
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		b, err := e.join(n.Name, same)
		if err == nil {
			if n.How == option.NameCreate || n.How == option.NameNoExec {
				return nil, errors.Join(refuseRunning(n), b.container.Close())
			}
			return b, nil
		}
		if !errors.Is(err, container.ErrNotRunning) {
			return nil, err
		}
		if n.How == option.NameExec {
			return nil, fault.WithHint(fmt.Errorf("--%s: container %s does not run on node %s", option.Name, n.Name, n.Node),
				"start it with another step, or leave :"+option.NameExec+" out")
		}
		b, err = e.startNamed(ctx, kept, n)
		if !errors.Is(err, rootfs.ErrInUse) {
			return b, err
		}
		if time.Now().After(end) {
			return nil, fault.WithHint(fmt.Errorf("container %s: %w, by what cannot be joined", n.Name, rootfs.ErrInUse),
				"end the processes of yours that hold it")
		}
	}
}

func refuseRunning(n request.Named) error {
	err := fmt.Errorf("--%s: container %s runs on node %s already", option.Name, n.Name, n.Node)
	if n.How == option.NameCreate {
		return fault.WithHint(err, "choose another name, or leave :"+option.NameCreate+" out to join it")
	}
	return fault.WithHint(err, "two containers cannot share what they write: leave :"+option.NameNoExec+" out to join it, or wait for its end")
}

// startNamed starts a container on what is kept of it, which is made if there is
// none.
func (e *Engine) startNamed(ctx context.Context, kept *named.Container, n request.Named) (*built, error) {
	state, exists, err := kept.State()
	if err != nil {
		return nil, err
	}
	switch {
	case exists && n.How == option.NameCreate:
		return nil, fault.WithHint(fmt.Errorf("--%s: container %s exists on node %s", option.Name, n.Name, n.Node),
			`choose another name, remove it with "brolga rm", or leave :`+option.NameCreate+" out to use it")
	case !exists && e.Job.Request.Image == ref.Ref{}:
		return nil, fault.WithHint(fmt.Errorf("--%s: there is no container %s on node %s", option.Name, n.Name, n.Node),
			"make it with --"+option.Image+"=IMAGE")
	}
	var file *os.File
	if exists {
		if file, err = e.reopen(kept, n, state); err != nil {
			return nil, err
		}
		defer file.Close()
	}
	return e.buildNew(ctx, func(img image.Image) (*os.File, error) {
		stamp := stampOf(img)
		if exists {
			if state.Stamp != "" && stamp != "" && stamp != state.Stamp {
				return nil, fault.WithHint(fmt.Errorf("container %s: its image %s has changed since it was made", n.Name, state.Image),
					`remove it with "brolga rm" and make it anew`)
			}
			return file, nil
		}
		r := e.Job.Request.Image
		if img.Meta.Digest != "" && r.Digest == "" {
			r.Digest = img.Meta.Digest
		}
		if err := kept.Make(ctx, named.State{Image: r.String(), Stamp: stamp}); err != nil {
			return nil, err
		}
		return kept.File()
	})
}

// reopen opens what is kept of a container, whose image the step has then.
func (e *Engine) reopen(kept *named.Container, n request.Named, state named.State) (*os.File, error) {
	r, err := ref.Parse(state.Image)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", n.Name, err)
	}
	asked := e.Job.Request.Image
	if asked != (ref.Ref{}) && (asked.Digest != r.Digest || asked.Name() != r.Name() && r.Digest == "") {
		e.say("warning", fmt.Sprintf("container %s exists and has the image %s; %s is not used", n.Name, r.Name(), asked.Name()))
	}
	file, err := kept.File()
	if err != nil {
		return nil, err
	}
	if busy, err := rootfs.InUse(file); err != nil || busy {
		if busy {
			err = rootfs.ErrInUse
		}
		return nil, errors.Join(err, file.Close())
	}
	e.Job.Request.Image = r
	return file, nil
}

// stampOf returns what tells whether an image is the same as another time, or "".
func stampOf(img image.Image) string {
	if img.Meta.Digest != "" || img.Way == source.Bind {
		return img.Meta.Digest
	}
	stamp, _ := source.Stamp(img.File) // then nothing can be told
	return stamp
}

// join lets the tasks into a container of the user's that runs on this node.
func (e *Engine) join(name string, wanted func(container.Label) bool) (*built, error) {
	r := &e.Job.Request
	c, label, err := container.Running(e.Namespace, r.UID, func(l container.Label) bool { return l.Node == e.Job.Node && wanted(l) })
	if err != nil {
		return nil, err
	}
	if err := e.adapt(name, label); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	process := &specs.Process{Cwd: label.Workdir, Env: label.Env}
	return &built{container: c, process: process}, nil
}

// adapt makes the request what the running container is, or says what of the
// request it cannot have.
func (e *Engine) adapt(name string, label container.Label) error {
	r := &e.Job.Request
	kinds := slices.DeleteFunc(slices.Clone(label.Kinds), func(k string) bool { return k == "user" })
	var errs []error
	for _, kind := range r.Unshare {
		if !slices.Contains(kinds, kind) {
			errs = append(errs, fmt.Errorf("--%s=%s: container %s runs without it", option.Unshare, kind, name))
		}
	}
	remapped := len(kinds) < len(label.Kinds)
	if r.RemapRoot && !remapped {
		errs = append(errs, fmt.Errorf("--%s: container %s runs without it", option.RemapRoot, name))
	}
	if r.SSH != nil {
		errs = append(errs, fmt.Errorf("--%s: container %s runs already, and has the servers that step %s wanted", option.SSH, name, label.Step))
	}
	if r.Save != nil {
		errs = append(errs, fmt.Errorf("--%s: container %s runs already, and only the step that started it, %s, can save it", option.Save, name, label.Step))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if slices.ContainsFunc(r.Mounts, func(m request.Mount) bool { return !m.Site }) {
		e.say("warning", fmt.Sprintf("--%s has no effect: container %s runs already, with the mounts of step %s", option.Mounts, name, label.Step))
	}
	r.Unshare, r.RemapRoot, r.Entrypoint, r.EntrypointLog = kinds, remapped, false, false
	return nil
}

// say tells the user something once the tasks are there.
func (e *Engine) say(key, text string) {
	record := wire.Record{Key: key, Value: fault.Printable(text)}
	if !slices.Contains(e.told, record) {
		e.told = append(e.told, record)
	}
}

// releaseOnce gives the name free when a task is in the container, where others
// find it, or is dead.
func (e *Engine) releaseOnce(namespace *os.File, pid int) {
	var want, is unix.Stat_t
	if e.release == nil || pid == 0 || unix.Fstat(int(namespace.Fd()), &want) != nil {
		return
	}
	path := fmt.Sprintf("/proc/%d/ns/mnt", pid)
	go func() {
		for unix.Stat(path, &is) == nil {
			if is.Ino == want.Ino {
				e.release()
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
}
