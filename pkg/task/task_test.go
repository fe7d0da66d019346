// SPDX-License-Identifier: Apache-2.0

package task

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/container"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

func TestEnvironment(t *testing.T) {
	value := func(name, v string) option.EnvEdit { return option.EnvEdit{Name: name, Value: &v} }
	keep := func(name string) option.EnvEdit { return option.EnvEdit{Name: name} }
	site := func(changes ...string) []request.EnvChange {
		var all []request.EnvChange
		for _, c := range changes {
			words := strings.SplitN(c, " ", 3)
			all = append(all, request.EnvChange{How: words[0], Name: words[1], Value: words[2]})
		}
		return all
	}
	step := []string{"PATH=/usr/bin", "LANG=de", "SLURM_PROCID=3", "HOME=/home/u"}
	for _, tt := range []struct {
		name  string
		image []string
		edits []option.EnvEdit
		want  []string // values of set records
		site  []request.EnvChange
	}{
		{"nothing", nil, nil, nil, nil},
		{"the image wins", []string{"PATH=/opt/bin", "NEW="}, nil, []string{"PATH=/opt/bin", "NEW="}, nil},
		{"except where the user keeps", []string{"PATH=/opt/bin", "LANG=C"}, []option.EnvEdit{keep("LANG")}, []string{"PATH=/opt/bin"}, nil},
		{"there is nothing to keep", []string{"TERM=xterm"}, []option.EnvEdit{keep("TERM")}, []string{"TERM=xterm"}, nil},
		{"the user sets", []string{"LANG=C"}, []option.EnvEdit{value("LANG", "fr"), value("EMPTY", "")}, []string{"LANG=C", "LANG=fr", "EMPTY="}, nil},
		{"the user removes", []string{"LANG=C"}, []option.EnvEdit{{Name: "LANG", Remove: true}, {Name: "NONE", Remove: true}}, []string{"LANG=C", "-LANG", "-NONE"}, nil},
		{"Slurm's stay", []string{"SLURM_PROCID=0", "PMI_RANK=0", "PMIX_RANK=0", "BROLGA_PIN=x", "SLURMD_NODENAME=x"}, nil, nil, nil},
		{"what is no variable", []string{"noequals", "=x", "A\nB=c", "\x1b[0m=x"}, nil, nil, nil},
		{"values are as they are", []string{"A=b=c", "B=two\nlines", "BASH_FUNC_m%%=() { :; }"}, nil, []string{"A=b=c", "B=two\nlines", "BASH_FUNC_m%%=() { :; }"}, nil},
		{"the site sets, after the image", []string{"LANG=C"}, nil, []string{"LANG=C", "LANG=fr", "NEW=1"}, site("set LANG fr", "set NEW 1")},
		{"the site adds to the image's", []string{"PATH=/opt/bin"}, nil, []string{"PATH=/opt/bin", "PATH=/a:/opt/bin", "PATH=/a:/opt/bin:/z"}, site("prepend PATH /a", "append PATH /z")},
		{"or to the step's", nil, nil, []string{"PATH=/a:/usr/bin"}, site("prepend PATH /a")},
		{"or to the one that the user keeps", []string{"PATH=/opt/bin"}, []option.EnvEdit{keep("PATH")}, []string{"PATH=/usr/bin:/z"}, site("append PATH /z")},
		{"or to nothing", []string{"EMPTY="}, nil, []string{"EMPTY=", "EMPTY=a", "NEW=z"}, site("prepend EMPTY a", "append NEW z")},
		{"the site removes", []string{"LANG=C"}, nil, []string{"LANG=C", "-LANG"}, site("unset LANG ")},
		{"the user has the last word", nil, []option.EnvEdit{value("LANG", "fr")}, []string{"LANG=de:C", "LANG=fr"}, site("append LANG C")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, r := range environment(tt.image, tt.site, tt.edits, step) {
				if r.Key == "unset" {
					r.Value = "-" + r.Value
				} else if r.Key != "set" {
					t.Errorf("record %q; want only set and unset", r)
				}
				got = append(got, r.Value)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("environment = %q; want %q", got, tt.want)
			}
		})
	}
}

// me is the user that the tests run as; root plays another.
func me() identity.User {
	if os.Geteuid() == 0 {
		return identity.User{UID: 4711, GID: 4711, Name: "ada"}
	}
	return identity.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Name: "me"}
}

// makeRoot makes the root directory of a container in a directory that the user
// can reach, and returns it open.
func makeRoot(t *testing.T) *os.File {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{".", "image", "work", "home/ada"} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		must(t, os.Chmod(filepath.Join(dir, name), 0o755))
	}
	must(t, os.Mkdir(filepath.Join(dir, "closed"), 0o000))
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	for name, target := range map[string]string{"link": "/work", "out": "../../../../..", "dangling": "nowhere", "loop": "loop"} {
		must(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	return open(t, dir)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestWorkdir(t *testing.T) {
	root := makeRoot(t)
	cwd := open(t, t.TempDir()) // not in the container
	for _, tt := range []struct {
		name, asked, image string
		want               string
		err                string
		warning            string // substring; empty means none
	}{
		{name: "the image's", image: "/image", want: "/image"},
		{name: "as asked", asked: "/work", image: "/image", want: "/work"},
		{name: "below", asked: "/home/ada", image: "/", want: "/home/ada"},
		{name: "a link", asked: "/link", want: "/link"},
		{name: "a link out ends in the root", asked: "/out", want: "/out"},
		{name: "the image's is missing", image: "/missing", want: "/", warning: "cannot enter the image's working directory /missing (no such directory in the container); starting in /"},
		{name: "the image's is a file", image: "/file", want: "/", warning: "not a directory"},
		{name: "the image's is closed", image: "/closed", want: "/", warning: "permission denied"},

		{name: "missing", asked: "/missing", err: "enter working directory /missing: no such directory in the container"},
		{name: "a file", asked: "/file", err: "enter working directory /file: not a directory"},
		{name: "below a file", asked: "/file/x", err: "enter working directory /file/x: "},
		{name: "closed", asked: "/closed", err: "enter working directory /closed: permission denied"},
		{name: "below a closed one", asked: "/closed/x", err: "enter working directory /closed/x: permission denied"},
		{name: "dangling", asked: "/dangling", err: "no such directory in the container"},
		{name: "a loop", asked: "/loop", err: "enter working directory /loop: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := workdir(root, tt.image, request.Request{Filesystem: request.Filesystem{Workdir: tt.asked, WorkdirFromJob: true}}, me(), cwd)
			if tt.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), "enter working directory "+tt.asked) || !strings.Contains(err.Error(), tt.err) || fault.Hint(err) == "" {
					t.Errorf("workdir = %q, %v; want an error with %q and a hint", got, err, tt.err)
				}
				return
			}
			if err != nil || got[0] != (wire.Record{Key: "workdir", Value: tt.want}) {
				t.Fatalf("workdir = %q, %v; want %q", got, err, tt.want)
			}
			if (len(got) > 1) != (tt.warning != "") || (len(got) > 1 && (got[1].Key != "warning" || !strings.Contains(got[1].Value, tt.warning))) {
				t.Errorf("workdir = %q; want the warning %q", got, tt.warning)
			}
		})
	}
}

// TestWorkdirFromJob checks that tasks start in the job's directory only where
// the container shows that directory and not one of the same name.
func TestWorkdirFromJob(t *testing.T) {
	dir, err := os.MkdirTemp("", "task-test") // reachable by all, unlike TempDir
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "root", dir), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "root/image"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "closed"), 0o700))
	host, other := open(t, "/"), open(t, filepath.Join(dir, "root"))
	for _, tt := range []struct {
		name    string
		root    *os.File
		cwd     string
		fromJob bool
		image   string
		want    string
	}{
		{"shown", host, dir, true, "/", dir},
		{"not wanted", host, dir, false, "/usr", "/usr"},
		{"another of the same name", other, dir, true, "/image", "/image"},
		{"not shown", other, "/usr", true, "/image", "/image"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := workdir(tt.root, tt.image, request.Request{Filesystem: request.Filesystem{WorkdirFromJob: tt.fromJob}}, me(), open(t, tt.cwd))
			if err != nil || len(got) != 1 || got[0].Value != tt.want {
				t.Errorf("workdir = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	if os.Geteuid() == 0 {
		got, err := workdir(host, "/", request.Request{Filesystem: request.Filesystem{WorkdirFromJob: true}}, me(), open(t, filepath.Join(dir, "closed")))
		if err != nil || got[0].Value != "/" {
			t.Errorf("workdir = %q, %v; want / instead of a directory closed to the user", got, err)
		}
	}
}

func TestNewPlan(t *testing.T) {
	c := &container.Container{Root: makeRoot(t)}
	process := &specs.Process{Cwd: "/image", Env: []string{"PATH=/opt/bin"}}
	r := request.Request{Environment: request.Environment{Env: []option.EnvEdit{{Name: "PATH"}}}}
	got, err := NewPlan(c, process, []hook.Numbers{{Variable: "CUDA_VISIBLE_DEVICES", New: map[int]int{10: 1, 3: 0}}}, r, me(), nil, []string{"PATH=/bin"}, open(t, "/"))
	if want := append(startIn("/image"), wire.Record{Key: "renumber", Value: "CUDA_VISIBLE_DEVICES=3:0,10:1"}); err != nil || !slices.Equal(got, want) {
		t.Errorf("NewPlan = %q, %v; want %q", got, err, want)
	}
	got, err = NewPlan(c, process, nil, request.Request{Filesystem: request.Filesystem{Workdir: "/missing"}}, me(), nil, nil, open(t, "/"))
	if err == nil {
		t.Errorf("NewPlan = %q; want an error", got)
	}
}

// TestLaunchers checks that launchers of MPI are told only where there is SSH, and that
// the user's words stay, and not those of Slurm.
func TestLaunchers(t *testing.T) {
	if got := launchers(request.Request{}, nil); got != nil {
		t.Errorf("launchers = %q; want nothing without SSH", got)
	}
	got := launchers(request.Request{Hooks: request.Hooks{SSH: &config.SSH{}}}, []string{"HYDRA_LAUNCHER=mine", "PRTE_MCA_plm="})
	want := []wire.Record{{Key: "set", Value: "OMPI_MCA_plm=rsh"}, {Key: "set", Value: "I_MPI_HYDRA_BOOTSTRAP=ssh"}}
	if !slices.Equal(got, want) {
		t.Errorf("launchers = %q; want %q", got, want)
	}
	const external = "--external-launcher"
	got = launchers(request.Request{Hooks: request.Hooks{SSH: &config.SSH{}}}, []string{"OMPI_MCA_plm=", "PRTE_MCA_plm=", "HYDRA_BOOTSTRAP=slurm",
		"HYDRA_LAUNCHER_EXTRA_ARGS=" + external, "I_MPI_HYDRA_BOOTSTRAP=slurm", "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS=-v"})
	want = []wire.Record{{Key: "set", Value: "HYDRA_LAUNCHER=ssh"}, {Key: "set", Value: "I_MPI_HYDRA_BOOTSTRAP=ssh"},
		{Key: "unset", Value: "HYDRA_BOOTSTRAP"}, {Key: "unset", Value: "HYDRA_LAUNCHER_EXTRA_ARGS"}}
	if !slices.Equal(got, want) {
		t.Errorf("launchers = %q; want %q", got, want)
	}
}

func TestTell(t *testing.T) {
	for v, want := range map[request.Verbosity]string{
		request.Quiet: "workdir debug", request.Normal: "workdir notice warning debug", request.Verbose: "workdir notice warning notice",
	} {
		plan := []wire.Record{{Key: "workdir"}, {Key: "notice"}, {Key: "warning"}, {Key: "debug"}}
		var got []string
		for _, r := range Tell(plan, v) {
			got = append(got, r.Key)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q; want %q", v, got, want)
		}
	}
}

func TestLaunch(t *testing.T) {
	entrypoint := []string{"/entry.sh", "-x y"}
	launched := []wire.Record{{Key: "launch", Value: "/dev/brolga-launch"}, {Key: "entrypoint", Value: "/entry.sh"}, {Key: "entrypoint", Value: "-x y"}}
	notice := func(text string) wire.Record { return wire.Record{Key: "notice", Value: text} }
	for _, tt := range []struct {
		name       string
		r          request.Request
		entrypoint []string
		want       []wire.Record
	}{
		{"not asked for", request.Request{}, entrypoint, nil},
		{"asked for", request.Request{Program: request.Program{Entrypoint: true}}, entrypoint, launched},
		{"the image has none", request.Request{Program: request.Program{Entrypoint: true}}, nil, nil},
		{"in a process namespace", request.Request{Namespaces: request.Namespaces{Unshare: []string{"pid"}}}, entrypoint, []wire.Record{launched[0], {Key: "fork", Value: "1"}}},
		{"saved here", request.Request{Filesystem: request.Filesystem{Save: &request.Save{Path: "/x", Here: true}}}, nil, []wire.Record{launched[0], {Key: "save", Value: "1"}}},
		{"saved elsewhere", request.Request{Filesystem: request.Filesystem{Save: &request.Save{Path: "/x"}}}, nil, nil},
		{"log", request.Request{Program: request.Program{Entrypoint: true, EntrypointLog: true}}, entrypoint, append([]wire.Record{notice("entrypoint: /entry.sh -x y")}, launched...)},
		{"log of none", request.Request{Program: request.Program{Entrypoint: true, EntrypointLog: true}}, nil, []wire.Record{notice("no entrypoint is run: the image has none")}},
		{"log only", request.Request{Program: request.Program{EntrypointLog: true}}, entrypoint, []wire.Record{notice("no entrypoint is run: --container-entrypoint was not given")}},
		{"log of control characters", request.Request{Program: request.Program{Entrypoint: true, EntrypointLog: true}}, []string{"\x1b[2J"}, []wire.Record{
			notice("entrypoint: ?[2J"), {Key: "launch", Value: "/dev/brolga-launch"}, {Key: "entrypoint", Value: "\x1b[2J"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := launch(tt.r, tt.entrypoint); !slices.Equal(got, tt.want) {
				t.Errorf("launch = %q; want %q", got, tt.want)
			}
		})
	}
}

// pair returns the helper's end as a listener and the tasks' end.
func pair(t *testing.T) (*Listener, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fds[0]) })
	return Listen(fds[0]), fds[1]
}

func hello(t *testing.T, socket int, fds ...int) {
	t.Helper()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	must(t, unix.Sendmsg(socket, []byte("hello=1\x00"), rights, nil, 0))
}

func TestListener(t *testing.T) {
	l, tasks := pair(t)
	namespace, err := os.Open("/proc/self/ns/mnt")
	must(t, err)
	defer namespace.Close()
	cwd := open(t, "/usr")
	plan := []wire.Record{{Key: "workdir", Value: "/"}, {Key: "set", Value: "A=b\n"}}
	answer, err := Good(&container.Container{Namespace: namespace}, plan)
	must(t, err)

	for range 3 { // all tasks share the socket
		hello(t, tasks, int(namespace.Fd()), int(cwd.Fd()))
	}
	for range 3 {
		h, err := l.Next()
		must(t, err)
		sameFile(t, h.Namespace, namespace)
		sameFile(t, h.Cwd, cwd)
		must(t, h.Close())
		must(t, l.Send(answer))
	}
	for range 3 {
		text, fds := receive(t, tasks)
		if text != "ready=1\x00" || len(fds) != 2 {
			t.Fatalf("answer = %q with %d descriptors; want ready and two", text, len(fds))
		}
		sameFile(t, os.NewFile(uintptr(fds[0]), ""), namespace)
		checkPlan(t, fds[1], plan)
	}
	must(t, unix.Close(tasks))
	if h, err := l.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("Next = %v, %v; want io.EOF when all tasks are gone", h, err)
	}
	if err := l.Send(answer); err != nil {
		t.Errorf("Send to a task that is dead = %v; want no error", err)
	}
}

func sameFile(t *testing.T, got, want *os.File) {
	t.Helper()
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(int(got.Fd()), &a), unix.Fstat(int(want.Fd()), &b)); err != nil || a.Ino != b.Ino || a.Dev != b.Dev {
		t.Errorf("%s is not %s: %v", got.Name(), want.Name(), err)
	}
}

func receive(t *testing.T, socket int) (string, []int) {
	t.Helper()
	data, control := make([]byte, 8192), make([]byte, 256) // ANSWER_MAX of the shim
	n, controlled, flags, _, err := unix.Recvmsg(socket, data, control, unix.MSG_CMSG_CLOEXEC)
	must(t, err)
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		t.Error("the answer is too long for the shim")
	}
	var fds []int
	if controlled > 0 {
		messages, err := unix.ParseSocketControlMessage(control[:controlled])
		must(t, err)
		fds, err = unix.ParseUnixRights(&messages[0])
		must(t, err)
	}
	return string(data[:n]), fds
}

// checkPlan checks the content of the plan and that nobody can change it: all
// tasks of the node map the same file.
func checkPlan(t *testing.T, fd int, want []wire.Record) {
	t.Helper()
	defer unix.Close(fd)
	text := make([]byte, 4096)
	n, err := unix.Pread(fd, text, 0)
	must(t, err)
	if got, err := wire.Unmarshal(text[:n]); err != nil || !slices.Equal(got, want) {
		t.Errorf("plan = %q, %v; want %q", got, err, want)
	}
	if _, err := unix.Pwrite(fd, []byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write to the plan: %v; want it refused", err)
	}
	if err := unix.Ftruncate(fd, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate the plan: %v; want it refused", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("change the plan's seals: %v; want it refused", err)
	}
}

// TestNextTakesEnds checks that a task that has ended is answered on a pipe of its
// own, and on nothing else.
func TestNextTakesEnds(t *testing.T) {
	l, tasks := pair(t)
	defer unix.Close(tasks)
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer file.Close()
	send := func(fds ...int) {
		t.Helper()
		must(t, unix.Sendmsg(tasks, []byte("done=1\x00"), unix.UnixRights(fds...), nil, 0))
	}
	send(int(w.Fd()))
	h, err := l.Next()
	must(t, err)
	if h.Reply == nil || h.Close() != nil {
		t.Fatalf("Next = %+v; want a task that has ended", h)
	}
	_, err = h.Reply.WriteString("x")
	must(t, errors.Join(err, h.Reply.Close()))
	for _, fds := range [][]int{{int(file.Fd())}, {int(w.Fd()), int(w.Fd())}} {
		send(fds...)
		if h, err := l.Next(); err == nil {
			t.Errorf("Next = %+v; want an error", h)
		}
	}
}

func TestNextRefusesMalformedHellos(t *testing.T) {
	for _, tt := range []struct {
		name string
		fds  int
		want string
	}{
		{"none", 0, "internal error: hello without descriptors"},
		{"one", 1, "internal error: hello with 1 descriptors"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, tasks := pair(t)
			defer unix.Close(tasks)
			root := open(t, "/")
			hello(t, tasks, slices.Repeat([]int{int(root.Fd())}, tt.fds)...)
			if h, err := l.Next(); err == nil || err.Error() != tt.want {
				t.Errorf("Next = %v, %v; want the error %q", h, err, tt.want)
			}
		})
	}
}

func TestGoodRefusesWhatCannotBeWritten(t *testing.T) {
	_, err := Good(&container.Container{Namespace: os.Stdin}, []wire.Record{{Key: "set", Value: "A=\x00"}})
	if err == nil || !strings.Contains(err.Error(), "NUL") {
		t.Errorf("Good = %v; want an error", err)
	}
}

func TestBad(t *testing.T) {
	long := strings.Repeat("x", 10000)
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"error", errors.New("get image: not found"), "error=get image: not found\x00"},
		{"hint", fault.WithHint(errors.New("a"), "do b"), "error=a\x00hint=do b\x00"},
		{"joined", errors.Join(errors.New("a"), errors.New("b")), "error=a; b\x00"},
		{"control characters", errors.New("\x1b[2J\x00"), "error=?[2J?\x00"},
		{"longest", fault.WithHint(errors.New(long), long), "error=" + long[:errorLimit] + "...\x00hint=" + long[:errorLimit] + "...\x00"},
		{"unprintable hint", fault.WithHint(errors.New("a"), "\x00"), "error=internal error: unprintable error\x00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, tasks := pair(t)
			defer unix.Close(tasks)
			must(t, l.Send(Bad(tt.err)))
			if got, fds := receive(t, tasks); got != tt.want || len(fds) > 0 {
				t.Errorf("answer = %.80q with %d descriptors; want %.80q", got, len(fds), tt.want)
			}
		})
	}
}

// TestHelloSaysWho checks that the process is told by the kernel, where the
// plugin has asked for that.
func TestHelloSaysWho(t *testing.T) {
	l, tasks := pair(t)
	defer unix.Close(tasks)
	must(t, unix.SetsockoptInt(l.socket, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	root := open(t, "/")
	hello(t, tasks, int(root.Fd()), int(root.Fd()))
	h, err := l.Next()
	must(t, err)
	defer h.Close()
	if h.PID != os.Getpid() {
		t.Errorf("PID = %d; want %d", h.PID, os.Getpid())
	}
}

// TestForget: what the task starts finds nothing that asks for a container.
func TestForget(t *testing.T) {
	step := []string{
		"SLURM_SPANK__SLURM_SPANK_OPTION_brolga_container_image=a", "SLURM_SPANK__SLURM_SPANK_OPTION_brolga_no_container_mount_home=",
		"BROLGA_CONTAINER_IMAGE=a", "BROLGA_PIN=a@b", "BROLGA_ENVIRONMENT=e", "BROLGA_ENVIRONMENT_SETTINGS={}",
		"SLURM_SPANK__SLURM_SPANK_OPTION_other_container_image=a", "SLURM_JOB_ID=1",
	}
	if plan := forget(request.Request{}, step); plan != nil {
		t.Errorf("a task that inherits: %v", plan)
	}
	left := slices.Clone(step)
	for _, r := range forget(request.Request{Environment: request.Environment{Forget: true}}, step) {
		if r.Key != "unset" {
			t.Errorf("record %v; want unset", r)
		}
		left = slices.DeleteFunc(left, func(v string) bool { return strings.HasPrefix(v, r.Value+"=") })
	}
	if want := step[6:]; !slices.Equal(left, want) {
		t.Errorf("left are %q; want %q", left, want)
	}
}

// TestApply checks that the result is what the shim makes of the same plan.
func TestApply(t *testing.T) {
	plan := []wire.Record{{Key: "workdir", Value: "/a"}, {Key: "set", Value: "PATH=/bin"}, {Key: "unset", Value: "GONE"}, {Key: "set", Value: "NEW=a=b"}, {Key: "notice", Value: "PATH=x"}, {Key: "workdir", Value: "/w"}}
	env := []string{"PATH=/host", "GONE=1", "GONE_TOO=1", "KEPT=\xff"}
	got, dir := Apply(plan, env)
	if want := []string{"GONE_TOO=1", "KEPT=\xff", "PATH=/bin", "NEW=a=b"}; !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) || dir != "/w" {
		t.Errorf("Apply = %q, %q; want %q, /w", got, dir, want)
	}
	if env[0] != "PATH=/host" {
		t.Error("Apply changes its argument")
	}
	if _, dir := Apply(nil, nil); dir != "/" {
		t.Errorf("Apply of nothing starts in %q", dir)
	}
}
