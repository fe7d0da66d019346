// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"syscall"

	"github.com/brolga-hpc/brolga/pkg/bundle/account"
	"github.com/brolga-hpc/brolga/pkg/job"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// handOver resolves the step's request and writes it to the helper, which
// helper.c has started. Identity: root, in slurmstepd.
func handOver(c call, output int) error {
	text, err := prepare(c)
	if err != nil {
		return err
	}
	// The helper reads as soon as it runs, so a long text waits for that only.
	for len(text) > 0 {
		n, err := syscall.Write(output, text)
		if err != nil && err != syscall.EINTR {
			return fmt.Errorf("hand over to the helper: %w", err)
		}
		text = text[max(n, 0):]
	}
	return nil
}

// prepare returns the job of the helper.
func prepare(c call) ([]byte, error) {
	cfg, path, err := c.loadConfig(trust.Read)
	if err != nil {
		return nil, err
	}
	r, err := c.resolve(cfg)
	if err != nil {
		return nil, err
	}
	owner, groups, err := account.LookUp(r.UID, r.GID, r.Groups)
	if err != nil {
		return nil, err
	}
	return job.Job{
		Config:     cfg,
		ConfigPath: path,
		Request:    r,
		Account:    owner,
		Groups:     groups,
		Env:        c.step.Env,
	}.Marshal()
}
