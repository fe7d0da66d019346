// SPDX-License-Identifier: Apache-2.0

// Package device asks what a container gets with devices that have a name of CDI,
// the Container Device Interface (https://github.com/cncf-tags/container-device-interface).
//
// Specifications of CDI are YAML, and a parser for that costs each program that
// links it a tenth of a millisecond at its start, needed or not. So the helper
// does not link one: [Ask] runs brolga-parse, for steps with such devices only.
// Package cdi is what that program consists of.
package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/fault"
)

// Query is what is asked.
type Query struct {
	// Directories have specifications; later ones come first.
	Directories []string
	// Names are devices that must be there, VENDOR/CLASS=NAME.
	Names []string
	// Kinds, VENDOR/CLASS: the first of which there is a specification serves the
	// GPUs. If there is none, GPUs are left to others.
	Kinds []string
	// GPUs are devices of that kind: for each the names that it may have there,
	// the best first.
	GPUs [][]string
}

// Answer is what belongs to the devices.
type Answer struct {
	// Kind is the one that serves the GPUs, or empty.
	Kind string
	// Env, Nodes, Mounts and Hooks are in the order of the devices, each once.
	Env    []string
	Nodes  []Node
	Mounts []Mount
	Hooks  []Hook
	// Notes are for those who want to hear more.
	Notes []string
	// Error says why there is no answer, Hint what to do about it.
	Error, Hint string
}

// Node is a device file: that of the host, and where the container has it.
type Node struct {
	Host, Container string
	// Specification is the file that names it.
	Specification string
}

// Mount is a mount of the host's file or directory.
type Mount struct {
	Host, Container, Type string
	Options               []string
	// Specification is the file that names it.
	Specification string
}

// Hook is an OCI hook.
type Hook struct {
	// Specification is the file that names it, Stage one of the runtime
	// specification's.
	Specification, Stage string
	Path                 string
	Args, Env            []string
	Timeout              *int
}

// Ask runs the program, in the namespaces of the calling thread.
func Ask(ctx context.Context, program string, q Query) (Answer, error) {
	text, err := json.Marshal(q)
	if err != nil {
		return Answer{}, err
	}
	var a Answer
	if err := command.Parse(ctx, program, "cdi", text, &a); err != nil {
		return Answer{}, fmt.Errorf("read CDI specifications: %w", err)
	}
	if a.Error != "" {
		return Answer{}, fault.WithHint(errors.New(a.Error), a.Hint)
	}
	return a, nil
}
