// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestEndOrphans starts itself, because it kills all that the process has started.
func TestEndOrphans(t *testing.T) {
	const variable = "BROLGA_TEST_ORPHANS"
	file := os.Getenv(variable)
	if file != "" {
		leaveOrphan(t, file)
		return
	}
	file = filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0], "-test.run=^TestEndOrphans$")
	cmd.Env = append(os.Environ(), variable+"="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func leaveOrphan(t *testing.T, file string) {
	if err := Adopt(); err != nil {
		t.Fatal(err)
	}
	// A session of its own: no signal to the program's group reaches it.
	err := Run(t.Context(), shell("setsid sh -c 'echo $$ >"+file+".new; mv "+file+".new "+file+"; exec sleep 600' >/dev/null 2>&1 &"))
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for text == nil {
		text, _ = os.ReadFile(file)
		time.Sleep(time.Millisecond)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the orphan has ended by itself: %v", err)
	}
	if err := EndOrphans(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the orphan lives: %v", err)
	}
}
