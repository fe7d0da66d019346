// SPDX-License-Identifier: Apache-2.0

// Package step is what one step wants: the shim's message ([Call]) where it is
// submitted and on each node, and what a node has decided about it ([Step]).
package step

import (
	"errors"
	"fmt"
	"io"

	"github.com/brolga-hpc/brolga/pkg/account"
	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// Step is one step on one node: a decided request with what belongs to it.
type Step struct {
	Config  config.Config
	Request request.Request
	// ConfigPath is the file Config was read from, for the commands the helper
	// starts; empty for the defaults.
	ConfigPath string
	// Account and Groups are what the node knows of the job's user.
	Account identity.User
	Groups  []account.Group
	// Node is the name of the node.
	Node string
	// Env is the step's environment.
	Env []string
	// Asked are the options that the user gave.
	Asked option.Set
}

// ErrNoCall means that the shim did not say what to do: it has found a mistake
// of its own, of which it tells the tasks.
var ErrNoCall = errors.New("no request came")

// maxMessage limits the size in bytes of what the shim sends: MESSAGE_MAX there. Linux
// executes no program with more than 6 MiB of arguments and environment (execve(2)).
const maxMessage = 8 << 20

func readMessage(r io.Reader) ([]byte, error) {
	message, err := budget.Read(r, maxMessage)
	if errors.Is(err, budget.ErrLarge) {
		err = fault.WithHint(fmt.Errorf("the options and the environment of the step are %w", err),
			"submit with --export=NONE, or unset what the step does not need")
		// slurmstepd waits until all of it is read.
		_, drainErr := io.Copy(io.Discard, r)
		return nil, errors.Join(err, drainErr)
	}
	if err != nil {
		return nil, fmt.Errorf("read the step's request: %w", err)
	}
	return message, nil
}

// Read reads the shim's message up to the end of r and decides, as root, on the
// node: only a configuration that root alone can change is believed. The job that
// comes with an error is good for package engine's Refuse only.
func Read(r io.Reader) (Step, error) {
	message, err := readMessage(r)
	if err != nil {
		return Step{}, err
	}
	if len(message) == 0 {
		return Step{}, ErrNoCall
	}
	c, err := Parse(message)
	if err != nil {
		return Step{Request: request.Gated(c.Step)}, err
	}
	cfg, path, err := c.LoadConfig(trust.Read)
	if err != nil {
		return Step{Request: request.Gated(c.Step)}, err
	}
	j := Step{Config: cfg, ConfigPath: path, Account: c.Account, Groups: c.Groups, Node: c.Step.Node, Env: c.Step.Env}
	j.Account.Shell = "/bin/sh" // the one that images have
	j.Asked, err = c.options()
	j.Request = request.Gated(c.Step)
	if err != nil {
		return j, err
	}
	req, err := request.Resolve(cfg, j.Asked, c.Step)
	if err == nil && c.Account.Name == "" {
		err = fault.WithHint(fmt.Errorf("find user %d on this node: %s", req.UID, c.accountError),
			"the administrator must give the node the same accounts as the cluster")
	}
	if err == nil && req.SharesSecret() && req.Secret.IsZero() { // there is no other node
		req.Secret, err = slurm.NewSecret()
	}
	j.Request = req
	return j, err
}
