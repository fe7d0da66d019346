// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCloseOnExec checks that a program does not get what this process was given.
func TestCloseOnExec(t *testing.T) {
	given, err := unix.Open(os.DevNull, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(given)
	inherited := func() bool {
		var out bytes.Buffer
		c := shell(fmt.Sprintf("test ! -e /proc/self/fd/%d || echo inherited", given))
		c.Stdout = &out
		if err := Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return out.Len() > 0
	}
	if !inherited() {
		t.Fatal("the test sees no descriptor")
	}
	if err := CloseOnExec(); err != nil {
		t.Fatal(err)
	}
	if inherited() {
		t.Error("a program has a descriptor that this process was given")
	}
}
