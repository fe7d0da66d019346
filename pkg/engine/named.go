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
	"github.com/brolga-hpc/brolga/pkg/named"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// startOrJoinNamed joins the container that the step names, if it runs on the node, or
// starts it. Nobody else does so meanwhile: its name is locked until a task is in
// it and so can be found.
func (r *run) startOrJoinNamed(ctx context.Context) (*started, error) {
	n := *r.request.Named
	if n.Step {
		s, err := r.join(n.Name, func(l container.Label) bool { return l.Step == n.Name })
		if errors.Is(err, container.ErrNotRunning) {
			err = fault.WithHint(fmt.Errorf("join step %s: no container of yours runs on node %s in that step", n.Name, n.Node),
				"run the step on the nodes of the other one, for example with --nodelist")
		}
		return s, err
	}
	kept, err := named.Open(r.Step.Config.Named, n, r.user())
	if err != nil {
		return nil, err
	}
	s, err := r.joinOrStart(ctx, kept, n)
	if err != nil {
		return nil, errors.Join(err, kept.Release())
	}
	r.release = sync.OnceFunc(func() { _ = kept.Release() })
	return s, nil
}

// patience is how long the end of a container is waited for whose last process is
// gone.
const patience = 5 * time.Second

// joinOrStart decides by how the name is to be used.
func (r *run) joinOrStart(ctx context.Context, kept *named.Container, n request.Named) (*started, error) {
	same := func(l container.Label) bool { return l.Name == n.Name && l.Job == n.Job }
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		s, err := r.join(n.Name, same)
		if err == nil {
			if n.How == option.NameCreate || n.How == option.NameNoExec {
				return nil, errors.Join(refuseRunning(n), s.container.Close())
			}
			return s, nil
		}
		if !errors.Is(err, container.ErrNotRunning) {
			return nil, err
		}
		if n.How == option.NameExec {
			return nil, fault.WithHint(fmt.Errorf("--%s: container %s does not run on node %s", option.Name, n.Name, n.Node),
				"start it with another step, or leave :"+option.NameExec+" out")
		}
		s, err = r.startNamed(ctx, kept, n)
		if !errors.Is(err, rootfs.ErrInUse) {
			return s, err
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
func (r *run) startNamed(ctx context.Context, kept *named.Container, n request.Named) (*started, error) {
	state, exists, err := kept.State()
	if err != nil {
		return nil, err
	}
	switch {
	case exists && n.How == option.NameCreate:
		return nil, fault.WithHint(fmt.Errorf("--%s: container %s exists on node %s", option.Name, n.Name, n.Node),
			`choose another name, remove it with "brolga rm", or leave :`+option.NameCreate+" out to use it")
	case !exists && r.request.Image == ref.Ref{}:
		return nil, fault.WithHint(fmt.Errorf("--%s: there is no container %s on node %s", option.Name, n.Name, n.Node),
			"make it with --"+option.Image+"=IMAGE")
	}
	var file *os.File
	if exists {
		if file, err = r.reopen(kept, n, state); err != nil {
			return nil, err
		}
		defer file.Close()
	}
	return r.startNew(ctx, func(img image.Image) (*os.File, error) {
		stamp := stampOf(img)
		if exists {
			if state.Stamp != "" && stamp != "" && stamp != state.Stamp {
				return nil, fault.WithHint(fmt.Errorf("container %s: its image %s has changed since it was made", n.Name, state.Image),
					`remove it with "brolga rm" and make it anew`)
			}
			return file, nil
		}
		name := r.request.Image
		if img.Meta.Digest != "" && name.Digest == "" {
			name.Digest = img.Meta.Digest
		}
		if err := kept.Make(ctx, named.State{Image: name.String(), Stamp: stamp}); err != nil {
			return nil, err
		}
		return kept.File()
	})
}

// reopen opens what is kept of a container, whose image the step has then.
func (r *run) reopen(kept *named.Container, n request.Named, state named.State) (*os.File, error) {
	image, err := ref.Parse(state.Image)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", n.Name, err)
	}
	asked := r.request.Image
	if asked != (ref.Ref{}) && (asked.Digest != image.Digest || asked.Name() != image.Name() && image.Digest == "") {
		r.addMessage("warning", fmt.Sprintf("container %s exists and has the image %s; %s is not used", n.Name, image.Name(), asked.Name()))
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
	r.request.Image = image
	return file, nil
}

// stampOf returns what identifies the content of an image, or "" if nothing does.
func stampOf(img image.Image) string {
	if img.Meta.Digest != "" || img.Way == userfile.Bind {
		return img.Meta.Digest
	}
	stamp, _ := userfile.Stamp(img.File) // then nothing can be told
	return stamp
}

// join lets the tasks into a container of the user's that runs on this node.
func (r *run) join(name string, wanted func(container.Label) bool) (*started, error) {
	c, label, err := container.Running(r.Namespace, r.request.UID, func(l container.Label) bool { return l.Node == r.Step.Node && wanted(l) })
	if err != nil {
		return nil, err
	}
	kinds, remapped := namespacesOf(label)
	if err := checkJoin(r.request, name, label, kinds, remapped); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if slices.ContainsFunc(r.request.Mounts, func(m request.Mount) bool { return !m.Site }) {
		r.addMessage("warning", fmt.Sprintf("--%s has no effect: container %s runs already, with the mounts of step %s", option.Mounts, name, label.Step))
	}
	r.request = r.request.Joining(kinds, remapped)
	process := &specs.Process{Cwd: label.Workdir, Env: label.Env}
	return &started{container: c, process: process}, nil
}

// namespacesOf returns the kinds of namespaces that a running container has for itself,
// and reports whether it has one of users, too.
func namespacesOf(label container.Label) (kinds []string, remapped bool) {
	kinds = slices.DeleteFunc(slices.Clone(label.Kinds), func(k string) bool { return k == "user" })
	return kinds, len(kinds) < len(label.Kinds)
}

// checkJoin returns an error for what a step asks for that the running container of that
// name cannot have any more.
func checkJoin(r request.Request, name string, label container.Label, kinds []string, remapped bool) error {
	var errs []error
	for _, kind := range r.Unshare {
		if !slices.Contains(kinds, kind) {
			errs = append(errs, fmt.Errorf("--%s=%s: container %s runs without it", option.Unshare, kind, name))
		}
	}
	if r.RemapRoot && !remapped {
		errs = append(errs, fmt.Errorf("--%s: container %s runs without it", option.RemapRoot, name))
	}
	if r.SSH != nil {
		errs = append(errs, fmt.Errorf("--%s: container %s runs already, and has the servers that step %s wanted", option.SSH, name, label.Step))
	}
	if r.Save != nil {
		errs = append(errs, fmt.Errorf("--%s: container %s runs already, and only the step that started it, %s, can save it", option.Save, name, label.Step))
	}
	return errors.Join(errs...)
}

// releaseOnce gives the name free when a task is in the container, where others
// find it, or is dead.
func (r *run) releaseOnce(namespace *os.File, pid int) {
	var want, is unix.Stat_t
	if r.release == nil || pid == 0 || unix.Fstat(int(namespace.Fd()), &want) != nil {
		return
	}
	path := fmt.Sprintf("/proc/%d/ns/mnt", pid)
	go func() {
		for unix.Stat(path, &is) == nil {
			if is.Ino == want.Ino {
				r.release()
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
}
