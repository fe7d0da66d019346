// SPDX-License-Identifier: Apache-2.0

package step

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/account"
	"github.com/brolga-hpc/brolga/pkg/budget"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

// ABI is BROLGA_ABI of spank/brolga.h, the version of the messages. The
// shim, the library and the helper of a node must come from one release.
const ABI = 2

// Call is what the shim passes: options, facts of the step, and which
// configuration to read. spank/PROTOCOL.md lists its records.
type Call struct {
	Step       slurm.Step
	ConfigPath string
	// Given are the options, as names and values, in the order of the shim's.
	Given [][2]string
	// Account and Groups are what the node knows of the job's user; on the
	// submitting side they are empty.
	Account identity.User
	Groups  []account.Group
	// Launches tells, on the submitting side, that the caller is srun: what it is
	// told is for one step.
	Launches bool

	accountError string
}

// Parse reads a call. Only the form of its values is checked. What comes with an
// error may be incomplete.
func Parse(message []byte) (Call, error) {
	records, err := wire.Unmarshal(message)
	if err != nil {
		return Call{}, fmt.Errorf("internal error: message of the plugin: %w", err)
	}
	if err := checkVariables(records); err != nil {
		return Call{}, err
	}
	step, rest, err := slurm.FromRecords(records)
	if err != nil {
		return Call{}, err
	}
	c := Call{Step: step, Account: identity.User{UID: step.UID, GID: step.GID}}
	for i, r := range rest {
		next := func(key string) (string, error) {
			if i+1 == len(rest) || rest[i+1].Key != key {
				return "", fmt.Errorf("internal error: %s %s without %s", r.Key, r.Value, key)
			}
			return rest[i+1].Value, nil
		}
		if err := c.take(r, next); err != nil {
			return c, err
		}
	}
	return c, nil
}

// checkVariables refuses a variable with which no task could be executed: the kernel takes
// none that is longer than 32 pages (execve(2), MAX_ARG_STRLEN).
func checkVariables(records []wire.Record) error {
	limit := 32 * os.Getpagesize()
	for _, r := range records {
		if name, _, _ := strings.Cut(r.Value, "="); r.Key == "env" && len(r.Value) >= limit {
			return fault.WithHint(fmt.Errorf("variable %s is %w", budget.Shorten(name), budget.Large(int64(limit))),
				"unset it, or make it shorter: Linux executes no program with it")
		}
	}
	return nil
}

// take reads one record; next returns the value of the one that must follow.
func (c *Call) take(r wire.Record, next func(key string) (string, error)) error {
	switch r.Key {
	case "abi":
		return checkABI(r.Value)
	case "config":
		c.ConfigPath = r.Value
	case "option":
		value, err := next("value")
		c.Given = append(c.Given, [2]string{r.Value, value})
		return err
	case "launches":
		c.Launches = true
	case "account":
		c.Account.Name = r.Value
	case "account_error":
		c.accountError = r.Value
	case "gecos":
		c.Account.Gecos = r.Value
	case "home":
		c.Account.Home = r.Value
	case "named_group":
		name, err := next("group_name")
		gid, bad := strconv.ParseUint(r.Value, 10, 32)
		if bad != nil {
			return fmt.Errorf("internal error: record %s=%q is not a number", r.Key, r.Value)
		}
		c.Groups = append(c.Groups, account.Group{Name: name, GID: uint32(gid)})
		return err
	}
	return nil
}

func checkABI(number string) error {
	if number == strconv.Itoa(ABI) {
		return nil
	}
	return fault.WithHint(fmt.Errorf("the plugin speaks version %s of the protocol, the rest of Brolga on this node %d", number, ABI),
		"ask the administrator to install all of Brolga from one release")
}

// LoadConfig reads the site configuration that plugstack.conf names ([config.Load]).
func (c Call) LoadConfig(read func(string) ([]byte, error)) (cfg config.Config, path string, err error) {
	return config.Load(c.ConfigPath, func(path string) ([]byte, error) {
		text, err := read(path)
		return text, fault.WithHint(err, "tell the administrator of this cluster")
	})
}

// options returns what the user asked for, in all ways there are.
func (c Call) options() (option.Set, error) { return option.Collect(c.Given, c.Step.Getenv) }

// Resolve decides what the step needs.
func (c Call) Resolve(cfg config.Config) (request.Request, error) {
	set, err := c.options()
	if err != nil {
		return request.Request{}, err
	}
	return request.Resolve(cfg, set, c.Step)
}
