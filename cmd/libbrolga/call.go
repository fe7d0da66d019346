// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// call is what the shim passes: options, facts of the step, and which
// configuration to read.
type call struct {
	step       slurm.Step
	configPath string
	given      [][2]string
}

func parseCall(message []byte) (call, error) {
	records, err := wire.Unmarshal(message)
	if err != nil {
		return call{}, fmt.Errorf("internal error: message of the plugin: %w", err)
	}
	step, rest, err := slurm.FromRecords(records)
	if err != nil {
		return call{}, err
	}
	c := call{step: step}
	for i, r := range rest {
		switch r.Key {
		case "config":
			c.configPath = r.Value
		case "option":
			if i+1 == len(rest) || rest[i+1].Key != "value" {
				return call{}, fmt.Errorf("internal error: option %s without value", r.Value)
			}
			c.given = append(c.given, [2]string{r.Value, rest[i+1].Value})
		}
	}
	return c, nil
}

// loadConfig reads the site configuration with read. Without a configured path
// the default file is read if it exists; path is what was read, or "".
func (c call) loadConfig(read func(string) ([]byte, error)) (cfg config.Config, path string, err error) {
	path = c.configPath
	if path == "" {
		path = config.DefaultPath
	}
	text, err := read(path)
	if c.configPath == "" && errors.Is(err, fs.ErrNotExist) {
		return config.Default(), "", nil
	}
	if err != nil {
		return config.Config{}, "", fault.WithHint(fmt.Errorf("read site configuration: %w", err),
			"tell the administrator of this cluster")
	}
	cfg, err = config.Parse(path, text)
	return cfg, path, err
}

// resolve decides what the step needs.
func (c call) resolve(cfg config.Config) (request.Request, error) {
	set, err := option.Collect(c.given, c.step.Getenv)
	if err != nil {
		return request.Request{}, err
	}
	return request.Resolve(cfg, set, c.step)
}

// groupsOfProcess are the calling user's, for the submitting side.
func groupsOfProcess() []uint32 {
	var groups []uint32
	gids, _ := os.Getgroups() // only refused by a broken kernel
	for _, gid := range gids {
		groups = append(groups, uint32(gid))
	}
	return groups
}
