// SPDX-License-Identifier: Apache-2.0

// Package ssh lets the containers of a step log in to each other.
//
// Condition: the user asks for it (--container-ssh). Settings: [ssh] in the site's
// configuration.
//
// A server runs in the container of each node (cmd/brolga-ssh), as the job's user
// and in the step's cgroups, until the last task of the node has ended. Where the
// image has OpenSSH's client, that is told about the nodes by /etc/ssh/ssh_config;
// where it has no client, it gets one. A container shows nothing else of the host:
// keys are made for the step (pkg/ssh/realm), and files with them are in memory.
package ssh

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	bundlespec "github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/slurm"
	"github.com/brolga-hpc/brolga/pkg/ssh/setup"
)

// Hook implements hook.Editor, hook.Inspector and hook.SidecarStarter.
type Hook struct{}

// Name implements hook.Hook.
func (Hook) Name() string { return "ssh" }

// Describe implements hook.Hook.
func (Hook) Describe() hook.Description {
	return hook.Description{
		Stage:  hook.AtTask,
		When:   "--" + option.SSH,
		Effect: "starts an SSH server for the step's other containers",
	}
}

// Wanted implements hook.Hook.
func (Hook) Wanted(r request.Request) bool { return r.SSH != nil }

// Edit makes room for what clients need.
func (Hook) Edit(s *specs.Spec, _ request.Request) error {
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: setup.Dir, Source: "tmpfs", Type: "tmpfs", Options: []string{"size=64m", "mode=0700", "nosuid", "nodev", "noexec"}},
		bundlespec.Bind(config.SSHPath(), setup.Program, "ro"))
	return nil
}

// clientConfig is where OpenSSH's clients look, whoever has built them for a
// distribution (ssh_config(5), FILES).
const clientConfig = "/etc/ssh/ssh_config"

// Inspect tells the image's client about the step, or adds one.
func (Hook) Inspect(image *hook.Image, s *specs.Spec, _ request.Request) (hook.Findings, error) {
	dirs := searched(s.Process.Env)
	if find(image, append(dirs, usual), "ssh") {
		image.AddFile(clientConfig, []byte(include(read(image, clientConfig))))
	} else if err := image.Add(config.SSHPath(), path.Join(place(dirs), "ssh")); err != nil {
		return hook.Findings{}, err
	}
	return hook.Findings{Env: shell(image)}, nil
}

// searched returns the directories of PATH.
func searched(env []string) []string {
	text, _ := slurm.Getenv(env, "PATH")
	return slices.DeleteFunc(strings.Split(text, ":"), func(dir string) bool { return !path.IsAbs(dir) })
}

// usual is where launchers look for a client that do not search PATH.
const usual = "/usr/bin"

// place returns where a client goes: to the usual place, unless those that search PATH
// would not find it there.
func place(dirs []string) string {
	if len(dirs) == 0 || slices.Contains(dirs, usual) {
		return usual
	}
	return dirs[0]
}

func find(image *hook.Image, dirs []string, name string) bool {
	for _, dir := range dirs {
		if f, _, err := image.OpenFile(path.Join(dir, name)); err == nil {
			f.Close()
			return true
		}
	}
	return false
}

// maxConfig limits what is read of an image's configuration.
const maxConfig = 1 << 20

// read returns the content of a file, or nothing where the user could not read it
// either.
func read(image *hook.Image, path string) string {
	f, _, err := image.OpenFile(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return ""
	}
	return string(text)
}

// include returns a client's configuration with ours in front of it: the first
// value counts.
func include(before string) string {
	return "# The nodes of this step, for brolga --" + option.SSH + ".\nInclude " + path.Join(setup.Dir, setup.ConfigFile) + "\n\n" + before
}

// shell returns SHELL. OpenSSH's client starts the command that connects with it, and
// the user's own, of the host, need not be in the image.
func shell(image *hook.Image) []string {
	for _, dir := range []string{"/bin", "/usr/bin"} {
		for _, name := range []string{"bash", "sh"} {
			if find(image, []string{dir}, name) {
				return []string{"SHELL=" + path.Join(dir, name)}
			}
		}
	}
	return nil
}

// patience is how long a server may take until it listens.
const patience = 20 * time.Second

// company is a server.
type company struct{ conn *setup.Conn }

// Task implements hook.Sidecar.
func (c company) Task(pid int) error { return c.conn.SendTask(pid) }

// StartSidecar starts the server in the container and the step's cgroups, and waits until
// it listens.
//
// It is executed through a descriptor from the host: no path of the image is looked
// up by root.
func (Hook) StartSidecar(step hook.Step) (hook.Sidecar, error) {
	program, err := os.Open(config.SSHPath())
	if err != nil {
		return nil, fault.WithHint(fmt.Errorf("open the SSH server: %w", err), "ask the administrator to install all of Brolga from one release")
	}
	defer program.Close()
	conn, theirs, err := setup.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	proc, err := os.Open("/proc") // the host's: the container's is the image's to cover
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	err = step.Inside(func() error {
		_, err := command.Start(command.Cmd{
			Path:     fmt.Sprintf("/proc/self/fd/%d", setup.ProgramFD),
			Name:     "brolga-sshd",
			Args:     []string{"serve"},
			Identity: &step.User,
			Files:    []*os.File{program, theirs},
			Join:     step.Adopt,
			Before:   func() error { return step.Labels.OnExec(proc) },
		})
		return err
	})
	theirs.Close()
	if err == nil {
		err = conn.SendSetup(describe(step))
	}
	if err == nil {
		err = conn.Ready(patience)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the SSH server: %w", err), conn.Close())
	}
	return company{conn}, nil
}

// loopback is where the only node of a step is: nobody else has to reach it.
const loopback = "127.0.0.1"

func describe(step hook.Step) setup.Setup {
	r := step.Request
	s := setup.Setup{
		Key: r.Secret.Key("ssh"), User: step.User.Name, Nodes: reachedBy(r), Own: r.Own,
		Site: *r.SSH, Dir: step.Dir, Umask: step.Umask, Limits: slurm.Limits(step.Env),
		Filter: step.Filter,
	}
	if len(r.Peers) == 1 {
		s.Nodes = []slurm.Node{{Name: r.Peers[0].Name, Address: loopback}}
	}
	s.SetEnv(environment(step.Env, r))
	return s
}

// reachedBy returns the nodes with the addresses that the site wants its nodes to
// use among each other.
func reachedBy(r request.Request) []slurm.Node {
	nodes := slices.Clone(r.Peers)
	if r.Sync != nil {
		for i, n := range nodes {
			nodes[i].Address = r.Sync.AddressOf(n.Name, n.Address)
		}
	}
	return nodes
}

// environment returns what sessions start with: what a task has, less what belongs
// to one task alone.
func environment(env []string, r request.Request) []string {
	node := r.Peers[r.Own].Name
	all := slices.DeleteFunc(slices.Clone(env), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slurm.OfTask(name) || slurm.ForSlurm(name) || name == "SLURMD_NODENAME" || name == "SLURM_NODEID"
	})
	return append(all, "SLURMD_NODENAME="+node, fmt.Sprintf("SLURM_NODEID=%d", r.Own))
}
