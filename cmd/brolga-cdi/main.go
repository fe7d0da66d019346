// SPDX-License-Identifier: Apache-2.0

// Command brolga-cdi finds devices in the CDI specifications of a node. The helper
// runs it for steps that have such devices, with a query (pkg/device) on its
// standard input, as JSON, and the answer on its standard output.
//
// It is a program of its own because the parser of specifications would slow down
// the start of all steps.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/device"
	"github.com/brolga-hpc/brolga/pkg/device/cdi"
)

func main() {
	var q device.Query
	err := errors.Join(command.LimitMemory(), command.Hide())
	if err == nil {
		err = json.NewDecoder(os.Stdin).Decode(&q)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(cdi.Resolve(q))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "brolga-cdi:", err)
		os.Exit(1)
	}
}
