// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/edf"
	"github.com/brolga-hpc/brolga/pkg/job"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// maxSettings limits what a variable has to carry to the nodes: the kernel takes
// 128 KiB, the shim's buffer half of that.
const maxSettings = 48 << 10

// readEnvironment reads the environment definition file, if one is asked for,
// and returns the variable that tells the nodes what it says; c has it, too.
func readEnvironment(c *job.Call, cfg config.Config) ([]wire.Record, error) {
	name := option.EnvironmentOf(c.Given, c.Step.Getenv)
	if name == "" {
		return nil, nil
	}
	cwd, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	home, _ := c.Step.Getenv("HOME")
	set, err := edf.Load(name, edf.Search{
		Dirs:   edf.Dirs(home, cfg.Container.Environments, c.Step.Getenv),
		Cwd:    cwd,
		Getenv: c.Step.Getenv,
	})
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(option.Settings{Environment: name, Set: set})
	if err != nil {
		return nil, err
	}
	if len(text) > maxSettings {
		return nil, fmt.Errorf("--%s: %s says more than %d KiB", option.Environment, name, maxSettings>>10)
	}
	variable := option.SettingsVariable + "=" + string(text)
	c.Step.Env = append([]string{variable}, c.Step.Env...) // the first counts
	return []wire.Record{{Key: "env", Value: variable}}, nil
}
