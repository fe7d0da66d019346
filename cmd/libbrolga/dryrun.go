// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// errDone means that all is done that the user wanted: nothing is submitted, and
// that is no failure.
var errDone = errors.New("nothing is left to do")

// dryRun has the client print what would be run. The request is small enough for
// a pipe to hold.
func dryRun(cfg config.Config, path string, r request.Request) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	output, input, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("print the request: %w", err)
	}
	defer output.Close()
	argv := []string{cfg.Client, "spec"}
	if path != "" {
		argv = append(argv, "--config", path)
	}
	pid, err := syscall.ForkExec(cfg.Client, argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{output.Fd(), 1, 2}})
	if err == nil {
		_, err = input.Write(text)
	}
	input.Close()
	if err != nil {
		return fmt.Errorf("print the request: %s: %w", cfg.Client, err)
	}
	if err := wait(pid); err != nil {
		return err
	}
	return errDone
}
