// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/edf"
	"github.com/brolga-hpc/brolga/pkg/step"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// readEnvironment reads the environment definition file, if one is asked for,
// and returns the variable that tells the nodes what it says; c has it, too.
func readEnvironment(c *step.Call, cfg config.Config) ([]wire.Record, error) {
	variable, _, err := edf.Variable(c.Given, cfg.Container.Environments, c.Step.Getenv)
	if err != nil || variable == "" {
		return nil, err
	}
	c.Step.Env = append([]string{variable}, c.Step.Env...) // the first counts
	return []wire.Record{{Key: "env", Value: variable}}, nil
}
