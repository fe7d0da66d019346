// SPDX-License-Identifier: Apache-2.0

// Package job is what the library in slurmstepd hands to the helper: a decided
// request with what belongs to it, as JSON on the helper's standard input.
package job

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/brolga-hpc/brolga/pkg/bundle/account"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// Job is one step on one node.
type Job struct {
	Config  config.Config
	Request request.Request
	// ConfigPath is the file Config was read from, for the commands the helper
	// starts; empty for the defaults.
	ConfigPath string
	// Account and Groups are what the node knows of the job's user. The library
	// asks, because slurmstepd has the node's name services loaded; the helper
	// is a static program without them.
	Account account.User
	Groups  []account.Group
	// Env is the step's environment.
	Env []string
}

// Read reads a job.
func Read(r io.Reader) (Job, error) {
	var j Job
	if err := json.NewDecoder(r).Decode(&j); err != nil {
		return Job{}, fmt.Errorf("read the step's request: %w", err)
	}
	return j, nil
}

// Marshal returns the job as Read reads it.
func (j Job) Marshal() ([]byte, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("write the step's request: %w", err)
	}
	return text, nil
}
