// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
)

// build builds the program that tries things. The sandbox needs one without cgo.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "probe")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	return program
}

type wanted struct {
	Mode                     string
	Read, Run, Write, Change []string
	Network, Sealed          bool
}

// probe returns what a process in a sandbox can do.
func probe(t *testing.T, program string, w wanted, attempts ...string) string {
	t.Helper()
	sandbox, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, append([]string{string(sandbox)}, attempts...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("probe: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func needLandlock(t *testing.T, version int) {
	t.Helper()
	if Version() < version {
		t.Skipf("needs version %d of Landlock", version)
	}
}

func files(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"read/a", "write/a", "change/a", "change/b", "other/a"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEnterLimitsFiles(t *testing.T) {
	needLandlock(t, 3)
	program, dir := build(t), files(t)
	w := wanted{
		Read: []string{dir + "/read", dir + "/missing"}, Write: []string{dir + "/write/a", "/dev/null"}, Change: []string{dir + "/change"},
		Run: []string{"/usr", "/lib", "/lib64", "/bin"},
	}
	for _, tt := range []struct{ attempt, want string }{
		{"read DIR/read/a", "done"},
		{"list DIR/read", "done"},
		{"write DIR/read/a", "EACCES"},
		{"make DIR/read/b", "EACCES"},
		{"write DIR/write/a", "done"},
		{"truncate DIR/write/a", "done"},
		{"remove DIR/write/a", "EACCES"},
		{"make DIR/write/b", "EACCES"},
		{"make DIR/change/c", "done"},
		{"rename DIR/change/a", "done"},
		{"remove DIR/change/b", "done"},
		{"read DIR/other/a", "EACCES"},
		{"truncate DIR/other/a", "EACCES"},
		{"list DIR", "EACCES"},
		{"read /etc/passwd", "EACCES"},
		{"read /proc/self/status", "EACCES"},
		{"run /bin/true", "done"},
		{"run " + program, "EPERM"},
	} {
		attempt := strings.ReplaceAll(tt.attempt, "DIR", dir)
		if got, want := probe(t, program, w, attempt), attempt+": "+tt.want; got != want {
			t.Errorf("in the sandbox %q; want %q", got, want)
		}
	}
}

func TestEnterLimitsSystemCalls(t *testing.T) {
	program := build(t)
	attempts := []string{"ptrace", "bpf", "keyctl", "io_uring", "userfaultfd", "newuser", "mount", "clone-newuser", "clone3", "getpid", "socket unix", "socket inet", "socket alg"}
	want := []string{"EPERM", "EPERM", "EPERM", "EPERM", "EPERM", "EPERM", "EPERM", "EPERM", "ENOSYS", "done", "EPERM", "EPERM", "EPERM"}
	if runtime.GOARCH == "amd64" {
		attempts, want = append(attempts, "x32"), append(want, "ENOSYS")
	}
	for i, line := range strings.Split(probe(t, program, wanted{}, attempts...), "\n") {
		if line != attempts[i]+": "+want[i] {
			t.Errorf("in the sandbox %q; want %s", line, want[i])
		}
	}
}

func TestEnterKeepsWhatIsAskedFor(t *testing.T) {
	needLandlock(t, 6)
	program := build(t)
	for _, tt := range []struct {
		name, attempt, want string
		with                wanted
	}{
		{"no network", "socket inet", "EPERM", wanted{}},
		{"network", "socket inet", "done", wanted{Network: true}},
		{"network of version 6", "socket inet6", "done", wanted{Network: true}},
		{"network for local sockets", "socket unix", "done", wanted{Network: true}},
		{"network of another kind", "socket packet", "EAFNOSUPPORT", wanted{Network: true}},
		{"network for a server", "listen", "EACCES", wanted{Network: true}},
		{"signals", "signal", "done", wanted{}},
		{"programs", "run /bin/true", "done", wanted{Run: []string{"/"}, Write: []string{"/dev/null"}}},
		{"sealed", "run /bin/true", "EPERM", wanted{Run: []string{"/"}, Write: []string{"/dev/null"}, Sealed: true}},
		{"off", "read /etc/passwd", "done", wanted{Mode: config.SandboxOff}},
		{"off for system calls", "keyctl", "ENOTSUP", wanted{Mode: config.SandboxOff}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := probe(t, program, tt.with, tt.attempt); got != tt.attempt+": "+tt.want {
				t.Errorf("in the sandbox %q; want %s", got, tt.want)
			}
		})
	}
}

// TestHandles checks that nothing is asked of a kernel that it does not know, which
// it would refuse.
func TestHandles(t *testing.T) {
	for version, bits := range map[int]struct{ fs, net, scoped int }{
		1: {13, 0, 0}, 2: {14, 0, 0}, 3: {15, 0, 0}, 4: {15, 2, 0}, 5: {16, 2, 0}, 6: {16, 2, 2}, 7: {16, 2, 2}, 99: {16, 2, 2},
	} {
		got := Sandbox{}.handles(version, 3)
		if got.Handled_access_fs != 1<<bits.fs-1 || got.Handled_access_net != 1<<bits.net-1 || got.Scoped != 1<<bits.scoped-1 {
			t.Errorf("version %d: %+v; want %d, %d and %d bits", version, got, bits.fs, bits.net, bits.scoped)
		}
	}
}

func TestRequired(t *testing.T) {
	rules, err := Sandbox{Site: config.Sandbox{Mode: config.SandboxRequired}}.ruleset(0)
	rules.Close()
	if (err == nil) != (Version() > 0) {
		t.Errorf("with version %d of Landlock: %v", Version(), err)
	}
}

// TestAround checks what the launcher is told; integration/security/security-sandbox.bats checks
// what it does.
func TestAround(t *testing.T) {
	c := command.Cmd{Path: "/usr/bin/p", Args: []string{"a"}, Files: []*os.File{os.Stdin}}
	got, done, err := Sandbox{}.Around("/l", c)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	rules := "4"
	if Version() == 0 {
		rules = "-1"
	}
	want := []string{"confine", rules, got.Args[2], "/usr/bin/p", "/usr/bin/p", "a"}
	if got.Path != "/l" || got.Title != "p" || !slices.Equal(got.Args, want) || !strings.HasPrefix(got.Args[2], "0:2000000004000000") {
		t.Errorf("Around = %+v; want /l %q", got, want)
	}
	if len(c.Files) != 1 {
		t.Error("the command itself has changed")
	}
	if got, _, _ := (Sandbox{Site: config.Sandbox{Mode: config.SandboxOff}}).Around("/l", c); got.Path != c.Path {
		t.Errorf("without a sandbox %s is run", got.Path)
	}
}

// decide runs a filter for a system call, as the kernel would.
func decide(t *testing.T, program []unix.SockFilter, arch, number uint32, args ...uint64) uint32 {
	t.Helper()
	data := make([]uint32, 16)
	data[numberAt/4], data[archAt/4] = number, arch
	for i, a := range args {
		data[firstAt/4+2*i], data[firstAt/4+2*i+1] = uint32(a), uint32(a>>32)
	}
	var loaded uint32
	for at := 0; at < len(program); at++ {
		i := program[at]
		var holds bool
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			loaded = data[i.K/4]
			continue
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			holds = loaded == i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			holds = loaded >= i.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			holds = loaded&i.K != 0
		default:
			t.Fatalf("instruction %d has code %#x", at, i.Code)
		}
		if holds {
			at += int(i.Jt)
		} else {
			at += int(i.Jf)
		}
	}
	t.Fatal("the filter has no end")
	return 0
}

func TestFilter(t *testing.T) {
	const allow, eperm, enosys = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	const family = unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)
	closed, online := Sandbox{}.filter(), Sandbox{Network: true, Sealed: true}.filter()
	for _, tt := range []struct {
		name           string
		number         uint32
		args           []uint64
		closed, online uint32
	}{
		{"read", unix.SYS_READ, nil, allow, allow},
		{"mount", unix.SYS_MOUNT, nil, eperm, eperm},
		{"the last of the list", unix.SYS_NFSSERVCTL, nil, eperm, eperm},
		{"execve", unix.SYS_EXECVE, nil, allow, eperm},
		{"execveat", unix.SYS_EXECVEAT, nil, allow, eperm},
		{"clone3", unix.SYS_CLONE3, nil, enosys, enosys},
		{"clone a thread", unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_THREAD}, allow, allow},
		{"clone a namespace", unix.SYS_CLONE, []uint64{unix.CLONE_NEWNET}, eperm, eperm},
		{"ioctl", unix.SYS_IOCTL, []uint64{0, unix.TIOCGWINSZ}, allow, allow},
		{"ioctl that types", unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, eperm, eperm},
		{"ioctl that types, with more bits", unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI | 1<<40}, eperm, eperm},
		{"ioctl that pastes", unix.SYS_IOCTL, []uint64{0, tioclinux}, eperm, eperm},
		{"socket", unix.SYS_SOCKET, []uint64{unix.AF_INET}, eperm, allow},
		{"socket for files", unix.SYS_SOCKET, []uint64{unix.AF_UNIX}, eperm, allow},
		{"socket of the kernel", unix.SYS_SOCKET, []uint64{unix.AF_NETLINK}, eperm, family},
		{"socket for cryptography", unix.SYS_SOCKET, []uint64{unix.AF_ALG}, eperm, family},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := decide(t, closed, auditArch, tt.number, tt.args...); got != tt.closed {
				t.Errorf("without network %#x; want %#x", got, tt.closed)
			}
			if got := decide(t, online, auditArch, tt.number, tt.args...); got != tt.online {
				t.Errorf("with network %#x; want %#x", got, tt.online)
			}
		})
	}
	if got := decide(t, closed, unix.AUDIT_ARCH_I386, unix.SYS_READ); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("a system call of another machine: %#x; want the process killed", got)
	}
	if len(closed) > unix.BPF_MAXINSNS {
		t.Errorf("%d instructions", len(closed))
	}
}
