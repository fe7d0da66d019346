// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"os"
)

// gate holds libcontainer's init until the root file system is mounted. It is a
// pipe: a byte opens it, its end tells that the init is not needed.
type gate struct{ init, helper *os.File }

// gateDescriptor is the init's end: libcontainer passes extra files first
// (Process.ExtraFiles).
const gateDescriptor = 3

func newGate() (*gate, error) {
	r, w, err := os.Pipe()
	return &gate{init: r, helper: w}, err
}

// openAfter calls f and lets the init pass if that returns no error.
func (g *gate) openAfter(f func() error) error {
	if err := f(); err != nil {
		return err
	}
	if _, err := g.helper.Write([]byte{1}); err != nil {
		return fmt.Errorf("let the container's init go on: %w", err)
	}
	return nil
}

// waitAtGate is called in the init and tells whether it may go on.
func waitAtGate() bool {
	f := os.NewFile(gateDescriptor, "gate")
	defer f.Close()
	n, _ := f.Read(make([]byte, 1))
	return n == 1
}
