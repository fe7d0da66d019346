// SPDX-License-Identifier: Apache-2.0

// Package config is the site's configuration, /etc/brolga/brolga.toml.
//
// [Default] is the only source of default values. [Load] reads a file over the
// defaults; a key that is not known is an error naming file and line, because a
// misspelled security setting must not be a silent no. slurm-config/brolga.toml
// is the commented example, and a test keeps it equal to [Default].
//
// The file is read with privilege, so it must not be writable by anyone but
// root; package trust checks that where it is opened.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/brolga-hpc/brolga/pkg/policy"
)

// Version is the version of Brolga, set by the Makefile.
var Version = "devel"

// Prefix is the directory Brolga is installed under, set by the Makefile.
var Prefix = "/usr/local"

// RunDir is the directory on each node in which the plugin looks for what a helper has
// noted, whatever the site has set; set by the Makefile. It is the default of run_dir,
// and like that made when it is missing and gone after a reboot.
var RunDir = "/run/brolga"

// LauncherPath is where the launcher is on the host.
func LauncherPath() string { return filepath.Join(Prefix, "libexec/brolga/brolga-launch") }

// ParserPath is where the program is that reads CDI specifications and seccomp profiles.
func ParserPath() string { return filepath.Join(Prefix, "libexec/brolga/brolga-parse") }

// HelperPath is where the helper is.
func HelperPath() string { return filepath.Join(Prefix, "libexec/brolga/brolga-helper") }

// ContainerDir has an empty directory, "bundle", on which containers without Slurm
// are mounted, in a namespace of theirs: it comes with the installation, because
// users cannot make one where nothing else is to be seen.
func ContainerDir() string { return filepath.Join(Prefix, "libexec/brolga") }

// Config is the site's configuration. All paths are absolute.
type Config struct {
	// Store lists the directories of converted images, owned by StoreOwner. They
	// may be on file systems that all nodes share. An image is looked for in this
	// order and written to the first directory that exists and can be written.
	Store Dirs `toml:"store"`
	// StoreOwner is the user that converts images and owns the store. It needs
	// no privilege, no shell and no home.
	StoreOwner string `toml:"store_owner"`
	// StoreMaxSize limits each store: what was not used for the longest time goes
	// when an image was added. A percentage is of the store's file system.
	StoreMaxSize Portion `toml:"store_max_size"`
	// StoreUserShare limits the images in a store that one user was the first to
	// want. A percentage is of StoreMaxSize, or of the file system where that is no
	// limit.
	StoreUserShare Portion `toml:"store_user_share"`
	// StoreKeep is for how long an image that was used is not removed for
	// StoreMaxSize.
	StoreKeep Duration `toml:"store_keep"`
	// StoreCopyTo is a directory of each node, on its disk or in memory, that gets
	// a copy of what the node runs. Empty is none.
	StoreCopyTo string `toml:"store_copy_to"`
	// StoreCopySize limits StoreCopyTo.
	StoreCopySize Size `toml:"store_copy_size"`
	// Cache is the directory a user's pulled blobs are kept in, best on a file
	// system that login and compute nodes share. {home}, {user} and {uid} stand
	// for the user's, taken from the password database, not the environment.
	Cache string `toml:"cache"`
	// RunDir is a directory on each node for locks and empty mount points; it
	// is made when it is missing. It and all directories above it must be root's
	// alone. It should not survive a reboot.
	RunDir string `toml:"run_dir"`
	// Client is the brolga command, which pulls as the user and converts as
	// StoreOwner.
	Client string `toml:"client"`
	// Tar2sqfs is the program of squashfs-tools-ng that writes a squashfs.
	Tar2sqfs string `toml:"tar2sqfs"`
	// UserSquashfs says what becomes of squashfs files that users name: one of
	// the Squashfs constants.
	UserSquashfs string `toml:"user_squashfs"`
	// TrustedSquashfs are directories in which a squashfs of root's is trusted on any
	// file system.
	TrustedSquashfs []string `toml:"trusted_squashfs"`
	// Squashfuse is the program that serves such a file with SquashfsFuse.
	Squashfuse string `toml:"squashfuse"`
	// Sqfs2tar is the program of squashfs-tools-ng that unpacks such a file with
	// SquashfsConvert.
	Sqfs2tar string `toml:"sqfs2tar"`
	// AuditLog is the socket of a syslog that gets a line for each step and node. Empty
	// is none.
	AuditLog string `toml:"audit_log"`
	// PullTimeout limits one pull, and so the time that tasks wait for it.
	PullTimeout Duration `toml:"pull_timeout"`
	// Registries has what the site says of single registries.
	Registries Registries `toml:"registry"`
	// MPI are the MPIs of the host that can take the place of an image's.
	MPI []MPI `toml:"mpi"`
	// MountSets are sets of what else of the host containers can get.
	MountSets []MountSet `toml:"mount_set"`
	// CDI and GPU have the settings of devices beside container.devices.
	CDI CDI `toml:"cdi"`
	GPU GPU `toml:"gpu"`
	// Convert limits the conversion of an image.
	Convert Convert `toml:"convert"`
	// Sandbox limits the programs that read what users wrote.
	Sandbox Sandbox `toml:"sandbox"`
	// Policy restricts which images run.
	Policy policy.Policy `toml:"policy"`
	// Container has the settings of the container itself.
	Container Container `toml:"container"`
	// Named has the settings of containers that are kept under a name.
	Named Named `toml:"named"`
	// Env has the site's changes to the variables of tasks.
	Env Env `toml:"env"`
	// Hooks has the settings of all hooks.
	Hooks Hooks `toml:"hooks"`
	// SSH has the settings of SSH servers in containers.
	SSH SSH `toml:"ssh"`
	// Sync says how the nodes of a step wait for each other.
	Sync Sync `toml:"sync"`
}

// Hooks is the part of [Config] about what containers get beyond their image.
type Hooks struct {
	// Directories have descriptors of OCI hooks, programs that run as root.
	Directories []string `toml:"directories"`
	// Timeout limits programs whose descriptor does not.
	Timeout Duration `toml:"timeout"`
	// Timestamps is a file on each node that gets what the time of each step's start
	// went to. Empty is none.
	Timestamps string `toml:"timestamps"`
	// Labels are patterns of names. An image's labels that match count as
	// annotations of the step, and so can switch on hooks.
	Labels []string `toml:"labels"`
}

// Convert is the part of [Config] that keeps an image, which anyone may have
// made, from using up a node or the store.
type Convert struct {
	// PerNode is how many conversions run on a node at the same time, and PerUser
	// how many of them are for the same user. Others wait.
	PerNode int `toml:"per_node"`
	PerUser int `toml:"per_user"`
	// Timeout is the longest time for one conversion.
	Timeout Duration `toml:"timeout"`
	// Memory limits each of the two processes of a conversion, and by half of it
	// what names and attributes of files take. Where Slurm limits memory with
	// cgroups, one that belongs to no job limits both together to twice as much.
	Memory Size `toml:"memory"`
	// Unpacked is how large all layers together may be, decompressed.
	Unpacked Size `toml:"unpacked"`
	// Squashfs is how large the result may be.
	Squashfs Size `toml:"squashfs"`
	// Files is how many files all layers together may have.
	Files int64 `toml:"files"`
}

// Sandbox is the part of [Config] about what brolga squash, save and pull, tar2sqfs,
// sqfs2tar and squashfuse can reach.
type Sandbox struct {
	// Mode is one of the Sandbox constants.
	Mode string `toml:"mode"`
	// Read and Write are paths that these programs may use beside what they need.
	Read  []string `toml:"read"`
	Write []string `toml:"write"`
}

// Container is the part of [Config] that decides how a container looks when
// the user did not say.
type Container struct {
	// Writable lets the user write to the root file system; what is written is
	// kept in memory and gone with the step.
	Writable bool `toml:"writable"`
	// MountHome mounts the user's home directory.
	MountHome bool `toml:"mount_home"`
	// Workdir says where tasks start when the user did not: "job" is the job's
	// working directory where the container shows that same directory, and the
	// image's otherwise; "image" is always the image's.
	Workdir string `toml:"workdir"`
	// TmpfsSize limits what a step may write to the root file system of one
	// node, in bytes or with the suffix k, m, g, or as a percentage of memory
	// (tmpfs(5), size).
	TmpfsSize string `toml:"tmpfs_size"`
	// Mounts are made in every container, in the syntax of --container-mounts.
	// Sources that a node lacks are left out there.
	Mounts []string `toml:"mounts"`
	// Devices are the host's device files that every container gets, as glob
	// patterns below /dev. Those that a node lacks are left out there.
	Devices []string `toml:"devices"`
	// Inherit gives steps of a batch script the script's container options.
	Inherit bool `toml:"inherit"`
	// Entrypoint runs the image's entrypoint in front of each command.
	Entrypoint bool `toml:"entrypoint"`
	// MPI names the [MPI] that replaces the image's where it fits unless the user
	// says otherwise. Empty is none.
	MPI string `toml:"mpi"`
	// Glibc replaces C libraries of images that are older than the host's unless
	// the user says otherwise.
	Glibc bool `toml:"glibc"`
	// RemapRoot makes the user root in a user namespace.
	RemapRoot bool `toml:"remap_root"`
	// Seccomp is the file of a seccomp profile for all tasks. Empty is none.
	Seccomp string `toml:"seccomp"`
	// AppArmorProfile and SELinuxLabel are what the kernel puts on all tasks. Empty is
	// nothing.
	AppArmorProfile string `toml:"apparmor_profile"`
	SELinuxLabel    string `toml:"selinux_label"`
	// Environments are directories with the site's environment definition
	// files, which are looked for after the user's.
	Environments []string `toml:"environments"`
	// AllowRoot lets jobs of the user root use containers. They run without
	// any capability all the same, but uid 0 owns files of the host.
	AllowRoot bool `toml:"allow_root"`
}

// DefaultPath is the configuration file that is read when nobody names one.
const DefaultPath = "/etc/brolga/brolga.toml"

// The values of [Config.UserSquashfs].
const (
	SquashfsFuse    = "fuse"    // served by a process of the user's
	SquashfsConvert = "convert" // turned into an image of the store
	SquashfsKernel  = "kernel"  // mounted as it is
	SquashfsDeny    = "deny"
)

// The values of [Sandbox.Mode].
const (
	SandboxAuto     = "auto"     // what the kernel offers
	SandboxRequired = "required" // a kernel without Landlock is an error
	SandboxOff      = "off"
)

// Default returns the configuration of a site that has not written one.
func Default() Config {
	return Config{
		Store:         Dirs{"/var/lib/brolga"},
		StoreOwner:    "brolga",
		StoreMaxSize:  Portion{Percent: 50},
		StoreKeep:     Duration(7 * 24 * time.Hour),
		StoreCopySize: 8 << 30,

		StoreUserShare: Portion{Percent: 25},

		Cache:        "{home}/.cache/brolga",
		RunDir:       RunDir,
		Client:       filepath.Join(Prefix, "bin/brolga"),
		Tar2sqfs:     "/usr/bin/tar2sqfs",
		UserSquashfs: SquashfsFuse,

		TrustedSquashfs: []string{},

		Squashfuse:  "/usr/bin/squashfuse_ll",
		Sqfs2tar:    "/usr/bin/sqfs2tar",
		PullTimeout: Duration(time.Hour),
		Convert: Convert{
			PerNode:  2,
			PerUser:  1,
			Timeout:  Duration(time.Hour),
			Memory:   2 << 30,
			Unpacked: 512 << 30,
			Squashfs: 256 << 30,
			Files:    2_000_000,
		},
		Sandbox: Sandbox{Mode: SandboxAuto, Read: []string{}, Write: []string{}},
		CDI:     CDI{Directories: []string{"/etc/cdi", "/var/run/cdi"}},
		GPU: GPU{
			Slurm:        true,
			Kinds:        []string{"nvidia.com/gpu", "amd.com/gpu", "intel.com/gpu"},
			Capabilities: []string{"compute", "utility"},
		},
		Policy: policy.Policy{Allow: []string{}, Deny: []string{}},
		Container: Container{
			Writable:  true,
			MountHome: true,
			Inherit:   true,
			Workdir:   "job",
			TmpfsSize: "25%",
			Mounts:    []string{},
			Devices:   []string{"/dev/infiniband/*", "/dev/cxi*", "/dev/xpmem", "/dev/knem", "/dev/fuse"},
			AllowRoot: false,

			Environments: []string{"/etc/brolga/edf"},
		},
		Named: Named{
			Scope:     ScopeJob,
			Directory: "/var/spool/brolga",
			Size:      20 << 30,
			Count:     256,
			UserShare: 50,
			Unused:    Duration(30 * 24 * time.Hour),
			Mke2fs:    "/usr/sbin/mke2fs",
			Squeue:    "/usr/bin/squeue",
		},
		Env: Env{Set: map[string]string{}, Prepend: map[string]string{}, Append: map[string]string{}, Unset: []string{}},
		Hooks: Hooks{
			Directories: []string{"/etc/brolga/hooks.d"},
			Timeout:     Duration(30 * time.Second),
			Labels:      []string{},
		},
		SSH: SSH{
			Enabled:     true,
			Ports:       PortRange{20000, 29999},
			Connections: 256,
			Sessions:    1024,
			LoginTime:   Duration(30 * time.Second),
		},
		Sync: Sync{
			Ports:   PortRange{64001, 65500},
			Fanout:  16,
			Timeout: Duration(10 * time.Minute),
			Address: "{address}",
		},
	}
}

// Load reads, with read, the file at named over the defaults, and checks the result.
// Where nobody has named one it is that at [DefaultPath], if it exists; one that is
// named must. Path is what was read, or "".
func Load(named string, read func(path string) ([]byte, error)) (c Config, path string, err error) {
	path = cmp.Or(named, DefaultPath)
	text, err := read(path)
	if named == "" && errors.Is(err, fs.ErrNotExist) {
		return Default(), "", nil
	}
	if err != nil {
		return Config{}, "", fmt.Errorf("read site configuration: %w", err)
	}
	c, err = Parse(path, text)
	return c, path, err
}

// Parse reads text over the defaults and checks the result; path is used in errors.
func Parse(path string, text []byte) (Config, error) {
	c := Default()
	err := Decode(path, text, &c)
	if err == nil || errors.Is(err, errUnknownKey) {
		err = errors.Join(err, c.Check())
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	if err != nil {
		return Config{}, fmt.Errorf("read site configuration %w", err)
	}
	return c, nil
}

var errUnknownKey = errors.New("unknown key")

// Decode reads TOML. Unknown keys are errors, which leave into as it would be
// without them. Errors begin with the path, or name it.
func Decode(path string, text []byte, into any) error {
	md, err := toml.NewDecoder(bytes.NewReader(text)).Decode(into)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return fmt.Errorf("%s:%d: %s", path, pe.Position.Line, pe.Message)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	var errs []error
	for _, key := range md.Undecoded() {
		errs = append(errs, fmt.Errorf("%w %s in %s:%d", errUnknownKey, key, path, LineOf(text, key)))
	}
	return errors.Join(errs...)
}

// LineOf finds the line that sets key. The decoder does not say where an
// unknown key stands, so this looks for its last part at the start of a line.
func LineOf(text []byte, key []string) int {
	name := key[len(key)-1]
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimLeft(line, " \t[\"'")
		if rest, ok := strings.CutPrefix(line, name); ok && strings.IndexAny(rest, " \t=\"'].") == 0 {
			return i + 1
		}
	}
	return 1
}

// UserCache returns the cache directory of one user.
func (c Config) UserCache(name string, uid int, home string) string {
	return strings.NewReplacer("{home}", home, "{user}", name, "{uid}", strconv.Itoa(uid)).Replace(c.Cache)
}
