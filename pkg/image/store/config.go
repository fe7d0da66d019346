// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"fmt"

	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/fault"
)

// Limits of an image's configuration, which the helper reads at each start. Images have
// some 10 KiB, and a hundred variables and labels.
const (
	maxConfig  = 1 << 20
	maxEntries = 10000
)

// Config is the part of an image's configuration that a container needs.
type Config struct {
	Env        []string          `json:"env,omitempty"`
	WorkingDir string            `json:"workingDir,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	User       string            `json:"user,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Check returns an error if the configuration is larger than the store takes.
func (c Config) Check() error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if len(text) > maxConfig {
		return tooMuch(budget.Large(maxConfig))
	}
	return c.checkEntries()
}

// checkEntries counts: an entry that is empty takes memory, too.
func (c Config) checkEntries() error {
	for _, part := range []struct {
		what string
		n    int
	}{{"variables", len(c.Env)}, {"words in its entrypoint", len(c.Entrypoint)}, {"words in its command", len(c.Cmd)}, {"labels", len(c.Labels)}} {
		if part.n > maxEntries {
			return tooMuch(fmt.Errorf("%d %s: the limit is %d", part.n, part.what, maxEntries))
		}
	}
	return nil
}

func tooMuch(err error) error {
	return fault.WithHint(fmt.Errorf("the image's configuration (environment, command and labels): %w", err),
		"build the image with fewer and shorter variables and labels")
}
