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
	if err := lower(unix.RLIMIT_DATA, limit); err != nil {
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

// inHiddenProcess marks the process that TestHide starts.
const inHiddenProcess = "BROLGA_TEST_HIDDEN"

// TestHide checks that the process leaves no core file and is closed to its own user, and
// that a program it starts has the limit from before and is open.
func TestHide(t *testing.T) {
	if os.Getenv(inHiddenProcess) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHide$", "-test.v")
		cmd.Env = append(os.Environ(), inHiddenProcess+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("in a process of its own: %v\n%s", err, out)
		}
		return
	}
	before := unix.Rlimit{Cur: 4096, Max: 8192}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &before); err != nil {
		t.Skip("the limit of core files is lower:", err)
	}
	if err := Hide(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Run(t.Context(), Cmd{Path: "/bin/sh", Args: []string{"-c", "ulimit -S -c; ulimit -H -c"}, Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(out.String()); len(got) != 2 || got[0] != "8" || got[1] != "16" {
		t.Errorf("a program has the limits %q; want those from before", got)
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &own); err != nil || own.Cur != 0 || own.Max != before.Max {
		t.Errorf("own limit %v, %v; want 0", own, err)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		t.Errorf("dumpable %d, %v; want 0", dumpable, err)
	}
}
