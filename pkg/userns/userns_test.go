// SPDX-License-Identifier: Apache-2.0

package userns

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMake enters the namespace and looks at who exists there.
func TestMake(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	ns, err := Make(4711, 4712, "/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	owner, err := unix.IoctlGetUint32(int(ns.Fd()), unix.NS_GET_OWNER_UID)
	if err != nil || owner != 0 {
		t.Errorf("owner = %d, %v; want root", owner, err)
	}
	enter := exec.Command("nsenter", "--user=/proc/self/fd/3", "--preserve-credentials", "cat", "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups")
	enter.ExtraFiles = []*os.File{ns}
	out, err := enter.CombinedOutput()
	if got, want := strings.Join(strings.Fields(string(out)), " "), "0 4711 1 0 4712 1 deny"; err != nil || got != want {
		t.Errorf("in the namespace: %q, %v; want %q", got, err, want)
	}
}

func TestMakeErrors(t *testing.T) {
	if ns, err := Make(1, 1, "/no/such"); err == nil || !strings.HasPrefix(err.Error(), "make user namespace: start /no/such: ") {
		t.Errorf("Make = %v, %v; want an error that names the program", ns, err)
	}
}
