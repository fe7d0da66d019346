// SPDX-License-Identifier: Apache-2.0

// Command brolga-parse reads formats for the helper whose parsers are large:
//
//	brolga-parse cdi      finds devices in the CDI specifications of a node: a query on
//	                      standard input, as JSON, the answer (pkg/device) on standard output
//	brolga-parse seccomp  makes a filter for the kernel of a seccomp profile: the profile on
//	                      standard input, the answer (pkg/seccomp) on standard output
//
// It is a program of its own because these parsers would slow down the start of all steps
// (docs/decisions/0019-one-parser-program.md).
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/device"
	"github.com/brolga-hpc/brolga/pkg/device/cdi"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/seccomp"
	"github.com/brolga-hpc/brolga/pkg/seccomp/compile"
)

// verbs read standard input and return what is written to standard output as JSON.
var verbs = map[string]func(io.Reader) (any, error){
	"cdi": func(in io.Reader) (any, error) {
		var q device.Query
		err := json.NewDecoder(in).Decode(&q)
		return cdi.Resolve(q), err
	},
	"seccomp": func(in io.Reader) (any, error) {
		var answer seccomp.Answer
		profile, err := io.ReadAll(in)
		if err != nil {
			return nil, err
		}
		if answer.Filter, err = compile.Profile(profile); err != nil {
			answer.Error = fault.Line(err)
		}
		return answer, nil
	},
}

func main() {
	if len(os.Args) != 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "brolga-parse: error: brolga-helper starts this program")
		os.Exit(2)
	}
	err := errors.Join(command.LimitMemory(), command.Hide())
	var answer any
	if err == nil {
		answer, err = verbs[os.Args[1]](os.Stdin)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "brolga-parse:", err)
		os.Exit(1)
	}
}
