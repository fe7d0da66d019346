// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	profiles "github.com/moby/profiles/seccomp"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/seccomp"
)

// trial is what a process does under a filter: system calls by number and
// arguments, whose errors it prints.
type trial struct {
	Filter seccomp.Filter
	Calls  [][3]uintptr
}

// try is the variable that makes of a test that process.
const try = "BROLGA_SECCOMP_TRIAL"

func TestMain(m *testing.M) {
	if os.Getenv(try) != "" {
		os.Exit(undergo())
	}
	os.Exit(m.Run())
}

func undergo() int {
	var t trial
	runtime.LockOSThread()
	err := json.NewDecoder(os.Stdin).Decode(&t)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if err == nil {
		err = t.Filter.Install()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, c := range t.Calls {
		_, _, errno := unix.RawSyscall(c[0], c[1], c[2], 0)
		fmt.Print(int(errno), " ")
	}
	return 0
}

// attempt returns the errors of system calls under a profile, and the signal that
// ended the process.
func attempt(t *testing.T, profile string, calls ...[3]uintptr) (string, syscall.Signal) {
	t.Helper()
	filter, err := Profile([]byte(profile))
	if err != nil {
		t.Fatal(err)
	}
	input, err := json.Marshal(trial{filter, calls})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), try+"=1")
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if err != nil && !status.Signaled() {
		t.Fatalf("%v: %s", err, out)
	}
	if status.Signaled() {
		return "", status.Signal()
	}
	return strings.TrimSpace(string(out)), 0
}

// rules is a profile that allows all but what the rules say.
func rules(text string) string {
	return `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [` + text + `]}`
}

func TestProfile(t *testing.T) {
	person := func(n uintptr) [3]uintptr { return [3]uintptr{unix.SYS_PERSONALITY, n, 0} }
	priority := [3]uintptr{unix.SYS_GETPRIORITY, 0, 0}
	const query = 0xffffffff // asks for the personality
	names := func(more string) string {
		return rules(`{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95` + more + `}`)
	}
	for _, tt := range []struct {
		name, profile string
		calls         [][3]uintptr
		want          string
	}{
		{"nothing is forbidden", rules(""), [][3]uintptr{person(query), priority}, "0 0"},
		{"an error", names(""), [][3]uintptr{person(query), priority}, "95 0"},
		{"EPERM without one", rules(`{"names": ["personality"], "action": "SCMP_ACT_ERRNO"}`), [][3]uintptr{person(query)}, "1"},
		{"a name of the old form", rules(`{"name": "personality", "action": "SCMP_ACT_ERRNO"}`), [][3]uintptr{person(query)}, "1"},
		{"several names", rules(`{"names": ["getpriority", "personality"], "action": "SCMP_ACT_ERRNO"}`), [][3]uintptr{person(query), priority}, "1 1"},
		{"it is logged", rules(`{"names": ["personality"], "action": "SCMP_ACT_LOG"}`), [][3]uintptr{person(query)}, "0"},
		{"an unknown name", rules(`{"names": ["nothing_such", "personality"], "action": "SCMP_ACT_ERRNO"}`), [][3]uintptr{person(query)}, "1"},
		{"an argument", names(`, "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]`), [][3]uintptr{person(8), person(query)}, "95 0"},
		{"another", names(`, "args": [{"index": 0, "value": 4294967295, "op": "SCMP_CMP_NE"}]`), [][3]uintptr{person(8), person(query)}, "95 0"},
		{"bits of one", names(`, "args": [{"index": 0, "value": 12, "valueTwo": 8, "op": "SCMP_CMP_MASKED_EQ"}]`), [][3]uintptr{person(9), person(query)}, "95 0"},
		{"less", names(`, "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_LT"}]`), [][3]uintptr{person(8), person(query)}, "95 0"},
		{"both arguments", names(`, "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}]`), [][3]uintptr{{unix.SYS_PERSONALITY, 8, 1}, {unix.SYS_PERSONALITY, query, 1}}, "95 0"},
		{"one argument twice", names(`, "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 9, "op": "SCMP_CMP_EQ"}]`), [][3]uintptr{person(8), person(9), person(query)}, "95 95 0"},
		{"here", names(`, "includes": {"arches": ["amd64", "arm64", "ppc64le"]}`), [][3]uintptr{person(query)}, "95"},
		{"elsewhere", names(`, "includes": {"arches": ["s390x"]}`), [][3]uintptr{person(query)}, "0"},
		{"not here", names(`, "excludes": {"arches": ["amd64", "arm64", "ppc64le"]}`), [][3]uintptr{person(query)}, "0"},
		{"of who has a capability", names(`, "includes": {"caps": ["CAP_SYS_ADMIN"]}`), [][3]uintptr{person(query)}, "0"},
		{"of who has none", names(`, "excludes": {"caps": ["CAP_SYS_ADMIN"]}`), [][3]uintptr{person(query)}, "95"},
		{"of this kernel", names(`, "includes": {"minKernel": "4.8"}`), [][3]uintptr{person(query)}, "95"},
		{"of a later kernel", names(`, "includes": {"minKernel": "255.0"}`), [][3]uintptr{person(query)}, "0"},
		{"of an earlier kernel", names(`, "excludes": {"minKernel": "4.8"}`), [][3]uintptr{person(query)}, "0"},
		{"flags", `{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}`, [][3]uintptr{person(query)}, "0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, signal := attempt(t, tt.profile, tt.calls...); got != tt.want || signal != 0 {
				t.Errorf("errors %q, %v; want %q", got, signal, tt.want)
			}
		})
	}
}

func TestProfileKills(t *testing.T) {
	_, signal := attempt(t, rules(`{"names": ["personality"], "action": "SCMP_ACT_KILL_PROCESS"}`), [3]uintptr{unix.SYS_PERSONALITY, 0xffffffff})
	if signal != unix.SIGSYS {
		t.Errorf("signal %v; want %v", signal, unix.SIGSYS)
	}
}

// TestDockersProfile runs a program of Go under what Docker has by default, made
// for several architectures.
func TestDockersProfile(t *testing.T) {
	text, err := json.Marshal(profiles.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	const newest = 1000 // no kernel has so many yet
	got, signal := attempt(t, string(text),
		[3]uintptr{unix.SYS_GETPRIORITY}, [3]uintptr{unix.SYS_MOUNT}, [3]uintptr{unix.SYS_CLONE3}, [3]uintptr{newest}, [3]uintptr{unix.SYS_PERSONALITY, 0xffffffff})
	if want := fmt.Sprintf("0 %d %d %d 0", unix.EPERM, unix.ENOSYS, unix.ENOSYS); got != want || signal != 0 {
		t.Errorf("errors %q, %v; want %q", got, signal, want)
	}
}

// TestExample checks that the profile we recommend is Docker's of the module's version, and
// one rule. "go list -m -f {{.Dir}} github.com/moby/profiles/seccomp" has the file.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../../../slurm-config/seccomp.json")
	if err != nil {
		t.Fatal(err)
	}
	var example profiles.Seccomp
	if err := json.Unmarshal(text, &example); err != nil {
		t.Fatal(err)
	}
	last := len(example.Syscalls) - 1
	ours := example.Syscalls[last]
	example.Syscalls = example.Syscalls[:last]
	got, err1 := json.Marshal(example)
	want, err2 := json.Marshal(profiles.DefaultProfile())
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) || !strings.HasPrefix(ours.Comment, "Brolga: ") {
		t.Error("the example is not Docker's profile with a rule of ours at its end")
	}
	before, _ := attempt(t, string(want), [3]uintptr{unix.SYS_GET_MEMPOLICY}, [3]uintptr{unix.SYS_KEYCTL})
	after, _ := attempt(t, string(text), [3]uintptr{unix.SYS_GET_MEMPOLICY}, [3]uintptr{unix.SYS_KEYCTL})
	if before != "1 1" || after != "0 1" {
		t.Errorf("get_mempolicy and keyctl: errors %q with Docker's profile, %q with ours; want only the first allowed", before, after)
	}
}

// TestForeignCalls checks that no other way to call the kernel leads around a
// profile of one architecture.
func TestForeignCalls(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("x32 is a way of x86-64's only")
	}
	if _, signal := attempt(t, rules(`{"names": ["personality"], "action": "SCMP_ACT_ERRNO"}`), [3]uintptr{x32 | unix.SYS_PERSONALITY, 0xffffffff}); signal != unix.SIGSYS {
		t.Errorf("signal %v; want %v", signal, unix.SIGSYS)
	}
}

func TestProfileNotes(t *testing.T) {
	filter, err := Profile([]byte(rules(`{"names": ["b_such", "a_such", "b_such", "read"], "action": "SCMP_ACT_ERRNO"}`)))
	if want := "unknown to libseccomp and ignored: a_such b_such"; err != nil || len(filter.Notes) != 1 || filter.Notes[0] != want {
		t.Errorf("Notes = %q, %v; want %q", filter.Notes, err, want)
	}
}

func TestProfileRefuses(t *testing.T) {
	rule := func(text string) string { return rules(`{"names": ["read"], ` + text + `}`) }
	for _, tt := range []struct{ name, profile, want string }{
		{"nothing", "", "unexpected end of JSON input"},
		{"no JSON", "x", "invalid character 'x'"},
		{"cut off", `{"defaultAction": "SCMP_ACT_ALLOW"`, "unexpected end of JSON input"},
		{"more than one", rules("") + rules(""), "after top-level value"},
		{"empty", "{}", "no defaultAction"},
		{"no default", `{"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}`, "no defaultAction"},
		{"an unknown default", `{"defaultAction": "ALLOW"}`, `defaultAction: unknown action "ALLOW"`},
		{"no action", rule(`"args": []`), `rule 1 (read): unknown action ""`},
		{"a tracer's", rule(`"action": "SCMP_ACT_TRACE"`), "rule 1 (read): SCMP_ACT_TRACE is not supported"},
		{"a listener's", rule(`"action": "SCMP_ACT_NOTIFY"`), "rule 1 (read): SCMP_ACT_NOTIFY is not supported"},
		{"a number that is none", rule(`"action": "SCMP_ACT_ERRNO", "errnoRet": 4096`), "errnoRet 4096: want 0 to 4095"},
		{"no name", rules(`{"action": "SCMP_ACT_ERRNO"}`), "rule 1 (): a system call without a name"},
		{"an unknown operator", rule(`"action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "EQ"}]`), `unknown operator "EQ"`},
		{"an argument too many", rule(`"action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]`), "argument 6"},
		{"an unknown architecture", `{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}`, "architecture SCMP_ARCH_VAX"},
		{"two lists of architectures", `{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}`, "archMap"},
		{"a listener", `{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}`, "flag"},
		{"several", rules(`{"names": ["read"], "action": "x"}, {"names": ["write"], "action": "y"}`), `rule 2 (write): unknown action "y"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Profile([]byte(tt.profile)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Profile: %v; want an error with %q", err, tt.want)
			}
		})
	}
}
