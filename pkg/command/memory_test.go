// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inLimitedProcess marks the process that TestLimitMemory starts: the limit is for all of a
// process and stays.
const inLimitedProcess = "BROLGA_TEST_LIMITED"

// TestLimitMemory checks that the process itself is limited, and that programs it starts
// have the limit from before.
func TestLimitMemory(t *testing.T) {
	if os.Getenv(inLimitedProcess) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLimitMemory$", "-test.v")
		cmd.Env = append(os.Environ(), inLimitedProcess+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("in a process of its own: %v\n%s", err, out)
		}
		return
	}
	// The race detector does not live with a limit of real size.
	const limit = 3 << 30
	before := unix.Rlimit{Cur: 4 << 30, Max: 5 << 30}
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &before); err != nil {
		t.Fatal(err)
	}
	if err := limitData(limit); err != nil {
		t.Fatal(err)
	}
	expectOwn := func() {
		t.Helper()
		var own unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_DATA, &own); err != nil || own.Cur != limit || own.Max != before.Max {
			t.Errorf("own limit %v, %v; want %d", own, err, uint64(limit))
		}
	}
	expectOwn()
	for range 20 {
		t.Run("programs", func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			if err := Run(t.Context(), Cmd{Path: "/bin/sh", Args: []string{"-c", "ulimit -S -d; ulimit -H -d"}, Stdout: &out}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Fields(out.String()); len(got) != 2 || got[0] != "4194304" || got[1] != "5242880" {
				t.Errorf("a program has the limits %q; want those from before", got)
			}
		})
	}
	if err := Run(t.Context(), Cmd{Path: "/no/such/program"}); err == nil {
		t.Error("Run of nothing succeeds")
	}
	t.Cleanup(expectOwn)
}

const inHiddenProcess = "BROLGA_TEST_HIDDEN"

// TestHideMemory checks that the kernel would write no core file of the process, and would
// write one of a program that it starts.
func TestHideMemory(t *testing.T) {
	if os.Getenv(inHiddenProcess) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHideMemory$", "-test.v")
		cmd.Env = append(os.Environ(), inHiddenProcess+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("in a process of its own: %v\n%s", err, out)
		}
		return
	}
	dumpable := func() int {
		t.Helper()
		n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := dumpable(); n != 1 {
		t.Fatalf("the process begins with %d; want 1", n)
	}
	if err := HideMemory(); err != nil {
		t.Fatal(err)
	}
	if n := dumpable(); n != 0 {
		t.Errorf("the process has %d; want 0", n)
	}
	var out bytes.Buffer
	const ask = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))" // PR_GET_DUMPABLE
	if err := Run(t.Context(), Cmd{Path: "/usr/bin/env", Args: []string{"python3", "-c", ask}, Env: os.Environ(), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(out.String()); got != "1" {
		t.Errorf("a program has %s; want 1", got)
	}
}
