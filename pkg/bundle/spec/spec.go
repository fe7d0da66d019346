// SPDX-License-Identifier: Apache-2.0

// Package spec generates the OCI runtime specification of a step's container.
// [Generate] is pure: the same request gives the same specification, so what a
// container will be can be read, compared and tested without making one.
//
// The specification is complete: another runtime could run it. Brolga itself
// makes the bind mounts below the root (package rootfs), because their sources
// must be opened as the user, and hands libcontainer the rest. The options
// [AsUser] and [Optional] say how; other runtimes take options that start with
// "x-" for comments, as mount(8) does.
package spec

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/option"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// Image is what the specification takes from the image's configuration (OCI
// image specification, config.md).
type Image struct {
	Env        []string
	WorkingDir string
	Entrypoint []string
	Digest     string
}

// Annotations of the generated specification.
const (
	// ImageAnnotation holds the image's name, DigestAnnotation its manifest's
	// digest, StepAnnotation the job step.
	ImageAnnotation  = "org.brolga.image"
	DigestAnnotation = "org.brolga.digest"
	StepAnnotation   = "org.brolga.step"
)

// Options of bind mounts beside those of the runtime specification.
const (
	// AsUser: open the source with the user's file-system identity.
	AsUser = "x-brolga.user"
	// Optional: leave the mount out where the source is missing.
	Optional = "x-brolga.optional"
	// Absent: leave the mount out where the container has the destination.
	Absent = "x-brolga.absent"
	// Device: nodev does not hold if the source is a device, or a directory of
	// them, that the user could open on the host.
	Device = "x-brolga.device"
	// Devices: nodev does not hold. Only for what the site names.
	Devices = "dev"
)

// defaultPath is the PATH of an image that sets none, as docker has it.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Generate returns the specification. Rootfs is the path of the root file
// system.
func Generate(r request.Request, user identity.User, image Image, rootfs string) *specs.Spec {
	s := &specs.Spec{
		Version:     specs.Version,
		Root:        &specs.Root{Path: rootfs, Readonly: !r.Writable},
		Process:     process(r, image),
		Mounts:      slices.Concat(systemMounts(r), launcher(r, image), mounts(r, user)),
		Annotations: annotations(r, image),
		Linux: &specs.Linux{
			// Everything but files is the host's unless the user asks: the step's
			// network, shared memory and processes are Slurm's business.
			Namespaces:        []specs.LinuxNamespace{{Type: specs.MountNamespace}},
			RootfsPropagation: "rslave",
		},
	}
	for _, kind := range r.Unshare {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: NamespaceTypes[kind]})
	}
	if r.RemapRoot {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: r.UID, Size: 1}}
		s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: r.GID, Size: 1}}
		s.Process.User = specs.User{}
	}
	return s
}

// NamespaceTypes maps [option.Namespaces] to the words of the runtime specification.
var NamespaceTypes = map[string]specs.LinuxNamespaceType{
	"net": specs.NetworkNamespace, "ipc": specs.IPCNamespace, "uts": specs.UTSNamespace, "pid": specs.PIDNamespace,
}

// annotations are the user's and ours, which nobody else can set.
func annotations(r request.Request, image Image) map[string]string {
	all := map[string]string{}
	maps.Copy(all, r.Annotations)
	all[ImageAnnotation], all[DigestAnnotation], all[StepAnnotation] = r.Image.String(), image.Digest, r.Step
	return all
}

// process describes the container's first process, which never executes
// anything: Slurm starts the tasks.
func process(r request.Request, image Image) *specs.Process {
	workdir := image.WorkingDir
	if !filepath.IsAbs(workdir) {
		workdir = "/"
	}
	return &specs.Process{
		// Exists in every image, also in one without a shell.
		Args:            []string{"/proc/self/exe"},
		Env:             env(image),
		Cwd:             filepath.Clean(workdir),
		User:            specs.User{UID: r.UID, GID: r.GID, AdditionalGids: r.Groups},
		Capabilities:    &specs.LinuxCapabilities{},
		NoNewPrivileges: true,
	}
}

func env(image Image) []string {
	for _, entry := range image.Env {
		if strings.HasPrefix(entry, "PATH=") {
			return image.Env
		}
	}
	return append([]string{defaultPath}, image.Env...)
}

// systemMounts are the host's, not fresh ones: a fresh /proc would show what
// the host's hidepid option hides. Those that show a namespace of the container
// are fresh.
func systemMounts(r request.Request) []specs.Mount {
	fresh := func(kind, at string, options ...string) specs.Mount {
		return specs.Mount{Destination: at, Type: kind, Source: kind, Options: append(options, "nosuid", "nodev", "noexec")}
	}
	proc, sys := Bind("/proc", "/proc", "noexec"), Bind("/sys", "/sys", "noexec", "ro")
	if r.Unshares("pid") {
		proc = fresh("proc", "/proc")
	}
	if r.Unshares("net") {
		sys = fresh("sysfs", "/sys", "ro")
	}
	mounts := []specs.Mount{proc, sys}
	if r.Unshares("ipc") {
		mounts = append(mounts, fresh("mqueue", "/dev/mqueue"))
	}
	return mounts
}

// SystemMount tells whether the mount is one that libcontainer makes.
func SystemMount(m specs.Mount) bool {
	return m.Destination == "/proc" || m.Destination == "/sys" || m.Type == "mqueue"
}

// Launcher is where the program is that Slurm executes in front of the command
// of steps that need it.
const Launcher = "/dev/brolga-launch"

func launcher(r request.Request, image Image) []specs.Mount {
	if !r.NeedsLauncher(image.Entrypoint) {
		return nil
	}
	return []specs.Mount{Bind(config.LauncherPath(), Launcher, "ro")}
}

func mounts(r request.Request, user identity.User) []specs.Mount {
	var mounts []specs.Mount
	switch r.Home {
	case request.HomeYes:
		mounts = append(mounts, Bind(user.Home, user.Home, AsUser))
	case request.HomeIfPresent:
		if filepath.Clean(user.Home) == "/" {
			break // an account of a service; it would hide the image
		}
		mounts = append(mounts, Bind(user.Home, user.Home, AsUser, Optional))
	}
	for _, m := range r.Mounts {
		target := filepath.Clean(m.Target)
		switch m.Source {
		case option.Umount:
			mounts = slices.DeleteFunc(mounts, func(s specs.Mount) bool { return s.Destination == target })
		case option.Tmpfs:
			mounts = append(mounts, specs.Mount{
				Destination: target, Source: option.Tmpfs, Type: "tmpfs",
				Options: withDefaults(m.Flags, [][]string{{"size=" + r.TmpfsSize, "size="}, {"mode=1777", "mode="}, {"nosuid"}, {"nodev"}}),
			})
		default:
			if slices.Contains(m.Flags, option.Squashfs) {
				mounts = append(mounts, specs.Mount{
					Destination: target, Source: m.Source, Type: "squashfs",
					Options: append(origin(m), "ro", "nosuid", "nodev"),
				})
				continue
			}
			mounts = append(mounts, Bind(m.Source, target, append(origin(m), m.Flags...)...))
		}
	}
	return mounts
}

// origin returns the options that say how the source is opened.
func origin(m request.Mount) []string {
	switch {
	case m.Site:
		return []string{Optional}
	case slices.Contains(m.Flags, "nodev"):
		return []string{AsUser}
	}
	return []string{AsUser, Device}
}

// Bind returns a bind mount with the given options and, where they do not say
// otherwise, rbind, rslave, nosuid and nodev.
func Bind(source, target string, options ...string) specs.Mount {
	options = withDefaults(options, [][]string{{"rbind"}, {"rslave", "slave", "rprivate", "private"}, {"nosuid"}, {"nodev", Devices}})
	return specs.Mount{Destination: target, Source: source, Type: "bind", Options: options}
}

// withDefaults returns the options and, of each group of which none is given,
// the first. A member that ends with "=" stands for any value.
func withDefaults(options []string, groups [][]string) []string {
	options = slices.Clone(options)
	for _, group := range groups {
		given := slices.ContainsFunc(options, func(o string) bool {
			name, _, hasValue := strings.Cut(o, "=")
			return slices.Contains(group, o) || hasValue && slices.Contains(group, name+"=")
		})
		if !given {
			options = append(options, group[0])
		}
	}
	return options
}
