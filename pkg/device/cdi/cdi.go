// SPDX-License-Identifier: Apache-2.0

// Package cdi reads CDI specifications and finds devices in them.
//
// A specification says what root mounts and executes, so only root may have
// written it: one that others could change, or that is not understood as a whole,
// does not count. It is named where a device is missed that it might have had.
// Users have no say in where specifications are.
package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/device"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// Resolve answers a query. What is wrong is part of the answer.
func Resolve(q device.Query) device.Answer {
	r := resolver{answer: &device.Answer{}, applied: map[string]bool{}}
	r.load(q.Directories)
	err := r.find(q)
	if err != nil {
		return device.Answer{Error: fault.Line(err), Hint: fault.Hint(err)}
	}
	for _, reason := range r.unusable {
		r.note("ignored: %v", reason)
	}
	return *r.answer
}

type resolver struct {
	specs       []*cdi.Spec
	directories []string
	// unusable says why specifications do not count.
	unusable []error
	answer   *device.Answer
	// applied has the specifications whose common part is in the answer, and the
	// devices that are.
	applied map[string]bool
}

func (r *resolver) note(format string, args ...any) {
	r.answer.Notes = append(r.answer.Notes, "CDI: "+fmt.Sprintf(format, args...))
}

// load reads the specifications, those of the last directory first.
func (r *resolver) load(directories []string) {
	r.directories = directories
	for i := len(directories) - 1; i >= 0; i-- {
		entries, err := os.ReadDir(directories[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = trust.Check(directories[i])
		}
		if err != nil {
			r.unusable = append(r.unusable, err)
			continue
		}
		for _, e := range entries {
			path := filepath.Join(directories[i], e.Name())
			if ext := filepath.Ext(path); ext != ".json" && ext != ".yaml" {
				continue
			}
			spec, err := read(path, i)
			if err != nil {
				r.unusable = append(r.unusable, err)
				continue
			}
			r.specs = append(r.specs, spec)
		}
	}
}

// maxSpec limits the size in bytes of a specification. NVIDIA's have some 20 KiB.
const maxSpec = 1 << 20

// read reads a specification. Once it and all that leads to it are root's alone, no
// other user can exchange it.
func read(path string, priority int) (*cdi.Spec, error) {
	err := trust.Check(path)
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(path); err == nil && st.Size() > maxSpec {
		return nil, fmt.Errorf("%s: %w", path, budget.Large(maxSpec))
	}
	spec, err := cdi.ReadSpec(path, priority)
	if err != nil {
		reason := err.Error()
		if _, rest, ok := strings.Cut(reason, strconv.Quote(path)); ok {
			reason = strings.TrimLeft(rest, ":, ")
		}
		return nil, fmt.Errorf("%s: %s", path, reason)
	}
	return spec, nil
}

func (r *resolver) find(q device.Query) error {
	var errs []error
	for _, kind := range q.Kinds {
		if len(q.GPUs) > 0 && len(r.names(kind)) > 0 {
			r.answer.Kind = kind
			break
		}
	}
	if r.answer.Kind != "" {
		for _, names := range q.GPUs {
			errs = append(errs, r.addGPU(names))
		}
	}
	for _, name := range q.Names {
		spec, dev, err := r.lookup(name)
		if err == nil && dev == nil {
			err = r.missing("this node has no CDI device "+name, name)
		}
		if err == nil {
			r.add(spec, dev)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *resolver) addGPU(names []string) error {
	for _, name := range names {
		qualified := r.answer.Kind + "=" + name
		spec, dev, err := r.lookup(qualified)
		if err != nil {
			return err
		}
		if dev != nil {
			r.add(spec, dev)
			return nil
		}
	}
	return r.missing(fmt.Sprintf("Slurm gave the step GPU %s, and this node has no CDI device %s of that name",
		strings.Join(names, " or "), r.answer.Kind), r.answer.Kind+"=")
}

// lookup finds a device, or nothing. Of several the one counts that is in a later
// directory.
func (r *resolver) lookup(qualified string) (spec *cdi.Spec, dev *cdi.Device, err error) {
	for _, s := range r.specs {
		kind, name, _ := strings.Cut(qualified, "=")
		d := s.GetDevice(name)
		switch {
		case s.Kind != kind || d == nil:
		case dev == nil:
			spec, dev = s, d
		case s.GetPriority() == spec.GetPriority():
			return nil, nil, fault.WithHint(fmt.Errorf("CDI device %s is in both %s and %s", qualified, spec.GetPath(), s.GetPath()), theSites)
		}
	}
	return spec, dev, nil
}

const theSites = "CDI specifications are the site's: tell its administrator"

// missing tells that a device is not there, and what might be the reason.
func (r *resolver) missing(text, qualified string) error {
	kind, _, _ := strings.Cut(qualified, "=")
	if len(r.unusable) > 0 {
		return fault.WithHint(fmt.Errorf("%s; ignored: %s", text, fault.Line(errors.Join(r.unusable...))), theSites)
	}
	if names := r.names(kind); len(names) > 0 {
		return fault.WithHint(errors.New(text), fmt.Sprintf("of %s it has %s", kind, strings.Join(names, ", ")))
	}
	return fault.WithHint(errors.New(text), fmt.Sprintf("no specification in %s is about %s", strings.Join(r.directories, ", "), kind))
}

// names returns the names of the devices of a kind.
func (r *resolver) names(kind string) []string {
	var all []string
	for _, s := range r.specs {
		if s.Kind != kind {
			continue
		}
		for _, d := range s.Devices {
			if !slices.Contains(all, d.Name) {
				all = append(all, d.Name)
			}
		}
	}
	return all
}

// add adds a device, and first what all devices of its specification have in common.
func (r *resolver) add(spec *cdi.Spec, dev *cdi.Device) {
	if path := spec.GetPath(); !r.applied[path] {
		r.applied[path] = true
		r.edit(path, &cdi.ContainerEdits{ContainerEdits: &spec.ContainerEdits})
	}
	if name := dev.GetQualifiedName(); !r.applied[name] {
		r.applied[name] = true
		r.note("%s is from %s", name, spec.GetPath())
		r.edit(spec.GetPath(), &cdi.ContainerEdits{ContainerEdits: &dev.ContainerEdits})
	}
}

// edit adds edits (SPEC.md of CDI, "containerEdits").
func (r *resolver) edit(path string, e *cdi.ContainerEdits) {
	a := r.answer
	for _, v := range e.Env {
		a.Env = appendNew(a.Env, v)
	}
	for _, n := range e.DeviceNodes {
		host := n.HostPath
		if host == "" {
			host = n.Path
		}
		a.Nodes = appendNew(a.Nodes, device.Node{Host: host, Container: n.Path, Specification: path})
	}
	for _, m := range e.Mounts {
		a.Mounts = appendNew(a.Mounts, device.Mount{Host: m.HostPath, Container: m.ContainerPath, Type: m.Type, Options: m.Options, Specification: path})
	}
	for _, h := range e.Hooks {
		a.Hooks = appendNew(a.Hooks, device.Hook{Specification: path, Stage: h.HookName, Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout})
	}
	for _, ignored := range []struct {
		is   bool
		what string
	}{
		{len(e.AdditionalGIDs) > 0, "additionalGids: a user's groups are those that the host gives"},
		{e.IntelRdt != nil, "intelRdt: cgroups and the like are Slurm's"},
		{len(e.NetDevices) > 0, "netDevices: the network is the host's"},
	} {
		if ignored.is {
			r.note("%s: ignored %s", path, ignored.what)
		}
	}
}

func appendNew[T any](all []T, one T) []T {
	if slices.ContainsFunc(all, func(other T) bool { return reflect.DeepEqual(one, other) }) {
		return all
	}
	return append(all, one)
}
