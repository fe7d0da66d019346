// SPDX-License-Identifier: Apache-2.0

// Package bundle makes an OCI bundle: a directory with a root file system and a
// config.json (runtime specification, bundle.md). It lives in the mount
// namespace of the calling thread and ends with it.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/account"
	"github.com/brolga-hpc/brolga/pkg/bundle/rootfs"
	"github.com/brolga-hpc/brolga/pkg/bundle/spec"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/nodecache"
	"github.com/brolga-hpc/brolga/pkg/request"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

// Params say what the bundle is made of.
type Params struct {
	// RunDir is a directory of the node, in which the bundle is mounted.
	RunDir  string
	Request request.Request
	// Image is the open squashfs or directory, and Way how it becomes the root
	// file system; Squashfuse is the program that may be needed for that.
	Image      *os.File
	Way        userfile.Way
	Squashfuse string
	// Sandbox has the site's settings for that program.
	Sandbox config.Sandbox
	// Servers and Join are those of rootfs.Params.
	Servers *rootfs.Servers
	Join    func(pid int) error
	// Squashfs is the site's policy for squashfs files that are mounted.
	Squashfs userfile.Policy
	// Kept is where what is written to the root file system is kept, or nil.
	Kept *os.File
	// ImageConfig is the image's configuration; Passwd and Group are its
	// /etc/passwd and /etc/group, nil if it has none. They are read from the
	// image where its configuration has no digest.
	ImageConfig   spec.Image
	Passwd, Group []byte
	// User is the job's user, Account and Groups what the host knows of them.
	User    identity.User
	Account identity.User
	Groups  []account.Group
	Hooks   []hook.Hook
	// UserNamespace is the user namespace of a request that remaps root.
	UserNamespace *os.File
	// Rootless and Terminal are those of rootfs.Params.
	Rootless bool
	Terminal string
}

// Bundle is a bundle whose root file system is mounted.
type Bundle struct {
	// Dir holds config.json and the root file system.
	Dir string
	// Spec is the content of config.json.
	Spec *specs.Spec
	// Findings is what hooks have added because of what is in the image, once Mount
	// has returned.
	Findings hook.Findings

	params Params
	root   *rootfs.Rootfs
	// mounts are those of Spec, their sources open.
	mounts []mount
}

// Create makes the bundle. All that its user names is opened before anything is
// mounted.
func Create(p Params) (*Bundle, error) {
	dir := filepath.Join(p.RunDir, "bundle")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	s := spec.Generate(p.Request, p.User, p.ImageConfig, filepath.Join(dir, "rootfs"))
	if err := hook.Edit(p.Hooks, s, p.Request); err != nil {
		return nil, err
	}
	if len(s.Mounts) > maxMounts {
		return nil, fmt.Errorf("%d mounts: want at most %d", len(s.Mounts), maxMounts)
	}
	mounts := openAll(s.Mounts, p)
	defer closeAll(mounts)
	root, err := rootfs.Build(rootfs.Params{
		Dir:        dir,
		Lock:       filepath.Join(p.RunDir, "loop.lock"),
		Image:      p.Image,
		Way:        p.Way,
		Squashfuse: p.Squashfuse,
		Sandbox:    p.Sandbox,
		Servers:    p.Servers,
		Join:       p.Join,
		TmpfsSize:  p.Request.TmpfsSize,
		Kept:       p.Kept,

		User: p.User,

		UserNamespace: p.UserNamespace,
		Rootless:      p.Rootless,
		Terminal:      p.Terminal,
		Saved:         p.Request.Saves(),
	})
	if err != nil {
		return nil, err
	}
	b := &Bundle{Dir: dir, Spec: s, params: p, root: root, mounts: mounts}
	if err := b.mount(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, writeConfig(dir, s)
}

// document has the fields of the specification that Brolga sets, in the format
// of config.json. Encoding the whole type takes encoding/json a millisecond of
// looking at fields for other systems; a test compares the results.
type document struct {
	Version     string            `json:"ociVersion"`
	Process     *specs.Process    `json:"process,omitempty"`
	Root        *specs.Root       `json:"root,omitempty"`
	Mounts      []specs.Mount     `json:"mounts,omitempty"`
	Hooks       *specs.Hooks      `json:"hooks,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Linux       linux             `json:"linux"`
}

type linux struct {
	UIDMappings       []specs.LinuxIDMapping `json:"uidMappings,omitempty"`
	GIDMappings       []specs.LinuxIDMapping `json:"gidMappings,omitempty"`
	Namespaces        []specs.LinuxNamespace `json:"namespaces,omitempty"`
	RootfsPropagation string                 `json:"rootfsPropagation,omitempty"`
}

func writeConfig(dir string, s *specs.Spec) error {
	text, err := json.Marshal(document{s.Version, s.Process, s.Root, s.Mounts, s.Hooks, s.Annotations, linux{s.Linux.UIDMappings, s.Linux.GIDMappings, s.Linux.Namespaces, s.Linux.RootfsPropagation}})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write config.json: %w", err)
	}
	return nil
}

// mount completes the root file system.
func (b *Bundle) mount() (err error) {
	root, p, s := b.root, b.params, b.Spec
	if p.ImageConfig.Digest == "" {
		p.Passwd, p.Group = root.ReadFile("/etc/passwd"), root.ReadFile("/etc/group")
	}
	if err := root.MakeTmp(); err != nil {
		return err
	}
	// Before anything of the host is mounted: there nothing may be made. What
	// cannot be made, the plan tells of where it matters.
	_ = root.MakeDirectory(s.Process.Cwd)
	if b.Findings, err = hook.Inspect(p.Hooks, root, s, p.Request, known(p)); err != nil {
		return err
	}
	if err := root.MountDev(slices.Concat(p.Request.Devices, b.Findings.Devices), p.Request.Unshares("ipc")); err != nil {
		return err
	}
	if err := addSystemFiles(root, p); err != nil {
		return err
	}
	if err := mountAll(root, slices.Concat(toMounts(b.Findings.Mounts), b.mounts)); err != nil {
		return err
	}
	for _, l := range b.Findings.Links {
		if err := root.Link(l.Path, l.Target); err != nil {
			b.Findings.Warnings = append(b.Findings.Warnings, fault.Line(err))
		}
	}
	if s.Root.Readonly || root.ReadOnly() {
		return root.MakeReadOnly()
	}
	return nil
}

// known is what hooks found in the image before. In a container that is kept it may have
// been changed since.
func known(p Params) hook.Cached {
	if p.Kept != nil {
		return hook.Cached{}
	}
	return hook.Cached{Memory: nodecache.At(filepath.Join(p.RunDir, "found")), Image: p.ImageConfig.Digest, Version: config.Version}
}

// Process returns the container's process with what hooks have found.
func (b *Bundle) Process() *specs.Process {
	p := *b.Spec.Process
	p.Env = slices.Concat(p.Env, b.Findings.Env)
	return &p
}

// ReadAhead reads what the step's program needs first (rootfs.ReadAhead).
func (b *Bundle) ReadAhead() {
	var path string
	for _, v := range b.Spec.Process.Env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			path = value
		}
	}
	b.root.ReadAhead(b.params.Request.Command, path)
}

// Label attaches text to the container, which only root can read and nobody can
// change, for those who join it later. A kernel whose tmpfs has no attributes
// does without.
func (b *Bundle) Label(text []byte) {
	_ = b.root.LabelDev(LabelAttribute, text)
}

// ShowDevAgain returns another path at which the container's /dev is mounted
// (rootfs.ShowDevAgain).
func (b *Bundle) ShowDevAgain() (string, error) { return b.root.ShowDevAgain() }

// LabelAttribute is the extended attribute of /dev that has the label. It takes
// CAP_SYS_ADMIN to see it (xattr(7), "Trusted extended attributes").
const LabelAttribute = "trusted.brolga"

// OpenTree opens the root file system without what is mounted in it
// (rootfs.OpenTree), also after Close.
func (b *Bundle) OpenTree() (*os.File, error) { return b.root.OpenTree() }

// Close releases what Create has opened. The mounts stay until the namespace ends.
func (b *Bundle) Close() error { return b.root.Close() }

// mount is a mount of the specification, and what the root file system makes of it.
type mount struct {
	specs.Mount
	bind rootfs.Mount
}

func (m mount) has(option string) bool { return slices.Contains(m.Options, option) }

// toMounts returns the mounts that libcontainer does not make.
func toMounts(all []specs.Mount) []mount {
	var mounts []mount
	for _, s := range all {
		if spec.SystemMount(s) {
			continue
		}
		m := mount{Mount: s}
		m.bind = rootfs.Mount{
			Source:   m.Source,
			Target:   m.Destination,
			AsUser:   m.has(spec.AsUser),
			ReadOnly: m.has("ro"),
			NoExec:   m.has("noexec"),
			Devices:  m.has(spec.Devices),
			Device:   m.has(spec.Device),
			Private:  m.has("private") || m.has("rprivate"),
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// maxMounts limits what a user can make the helper open.
const maxMounts = 1000

// openAll opens the sources of mounts, those of a user as the user. What cannot be
// opened is told of by mountAll.
func openAll(all []specs.Mount, p Params) []mount {
	mounts := toMounts(all)
	for i := range mounts {
		switch m := &mounts[i]; m.Type {
		case "tmpfs":
		case "squashfs":
			m.bind.OpenSquashfs(p.User, p.Squashfs)
		default:
			m.bind.Open(p.User)
		}
	}
	return mounts
}

func closeAll(mounts []mount) {
	for i := range mounts {
		mounts[i].bind.Close()
	}
}

// mountAll makes mounts. All that cannot be made are reported.
func mountAll(root *rootfs.Rootfs, mounts []mount) error {
	var errs []error
	for _, m := range mounts {
		if m.has(spec.Absent) && root.Has(m.Destination) {
			continue
		}
		if m.Type == "tmpfs" {
			errs = append(errs, root.MountTmpfs(m.Destination, m.Options))
			continue
		}
		mount := root.Mount
		if m.Type == "squashfs" {
			mount = root.MountSquashfs
		}
		err := mount(m.bind)
		if m.has(spec.Optional) && errors.Is(err, rootfs.ErrNoSource) {
			continue
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// addSystemFiles gives the container what it needs to know of the host and the
// user.
func addSystemFiles(root *rootfs.Rootfs, p Params) error {
	if err := root.AddFile("/etc/passwd", account.Passwd(p.Passwd, p.Account)); err != nil {
		return err
	}
	if err := root.AddFile("/etc/group", account.GroupFile(p.Group, p.Groups, p.Account.Name)); err != nil {
		return err
	}
	// Copies: the host may replace its files while the step runs.
	for _, path := range []string{"/etc/hosts", "/etc/resolv.conf"} {
		content, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("copy the host's %s: %w", path, err)
		}
		if err := root.AddFile(path, content); err != nil {
			return err
		}
	}
	return nil
}
