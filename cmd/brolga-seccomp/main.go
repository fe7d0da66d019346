// SPDX-License-Identifier: Apache-2.0

// Command brolga-seccomp makes a filter for the kernel of a seccomp profile. The
// helper runs it where the site has one, with the profile on its standard input and
// the answer (pkg/seccomp) on its standard output, as JSON.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/seccomp"
	"github.com/brolga-hpc/brolga/pkg/seccomp/compile"
)

func main() {
	var answer seccomp.Answer
	var text []byte
	err := errors.Join(command.LimitMemory(), command.Hide())
	if err == nil {
		text, err = io.ReadAll(os.Stdin)
	}
	if err == nil {
		if answer.Filter, err = compile.Profile(text); err != nil {
			answer.Error = fault.Line(err)
		}
		err = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "brolga-seccomp:", err)
		os.Exit(1)
	}
}
