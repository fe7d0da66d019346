// SPDX-License-Identifier: Apache-2.0

// Package option is the one table of what a user can ask for.
//
// [Table] names each option, its argument, its help text and its environment
// variable. spank/options.inc and the tables of docs/options.md and README.md
// are generated from it ("make generate"), so that srun, the library and the
// documentation cannot disagree.
//
// [Collect] turns what the user gave into a [Set]: each option at most once,
// the command line before the environment. The parsers of single values
// ([ParseMounts], [ParseEnv]) check form only; package request decides what a
// combination means.
package option

//go:generate go run ./internal/generate ../..

import "strings"

// Option is one row of [Table].
type Option struct {
	// Name is the long option without dashes.
	Name string
	// Arg is the name of the argument in help texts; empty for a flag.
	Arg string
	// Optional says that the argument may be left out. Such an option is a flag
	// as well, whose values are "1" and "0".
	Optional bool
	// Usage is the help text, one line without a final full stop.
	Usage string
	// Doc says more, for docs/options.md: whole sentences.
	Doc string
	// OnlySlurm says that the option means nothing without Slurm ("brolga run").
	OnlySlurm bool
	// Negates is the flag, or option with an optional argument, whose opposite this
	// flag is.
	Negates string
}

// Names of the options. They are spelled here and nowhere else.
const (
	Image       = "container-image"
	Mounts      = "container-mounts"
	Workdir     = "container-workdir"
	Env         = "container-env"
	Writable    = "container-writable"
	Readonly    = "container-readonly"
	MountHome   = "container-mount-home"
	NoMountHome = "no-container-mount-home"

	Entrypoint    = "container-entrypoint"
	NoEntrypoint  = "no-container-entrypoint"
	EntrypointLog = "container-entrypoint-log"

	Inherit   = "container-inherit"
	NoInherit = "no-container-inherit"

	RemapRoot   = "container-remap-root"
	NoRemapRoot = "no-container-remap-root"
	Unshare     = "container-unshare"
	Init        = "container-init"

	Device = "container-device"
	Name   = "container-name"
	Save   = "container-save"

	SSH   = "container-ssh"
	NoSSH = "no-container-ssh"

	MPI   = "container-mpi"
	NoMPI = "no-container-mpi"

	Glibc      = "container-glibc"
	NoGlibc    = "no-container-glibc"
	MountSet   = "container-mount-set"
	NoMountSet = "no-container-mount-set"

	Sync = "container-sync"

	Environment = "environment"
	Annotation  = "container-annotation"

	Platform = "container-platform"
	Pull     = "container-pull"
	Verbose  = "container-verbose"
	Quiet    = "container-quiet"
	DryRun   = "container-dry-run"
)

// Table lists the options in the order of the help text.
var Table = []Option{
	{
		Name: Image, Arg: "[REGISTRY/]NAME[:TAG][@DIGEST]",
		Usage: "run the step in a container of this image",
		Doc: "Names are written as for docker; `docker://NAME` and `REGISTRY#NAME` mean the same. " +
			"A tag is resolved once, where the step is submitted, and all nodes run that digest.",
	},
	{
		Name: Mounts, Arg: "SRC[:DST[:FLAGS]][,...]",
		Usage: "mount files or directories of the host",
		Doc: "DST defaults to SRC. A relative SRC starts at the step's working directory. FLAGS are separated by `+`: " +
			"`ro` or `rw` (default), `rbind` (always), `rslave` (default), `rprivate`, `nosuid` (always), `nodev` (always, " +
			"except below the host's `/dev`), `noexec`. A backslash makes a following comma, colon or backslash part of a " +
			"path; in double quotes around a path, `\"/a,b:c\":/dst`, only double quotes and backslashes want one. Blanks are " +
			"nothing special. `FILE:DST:sqsh` mounts the content of a squashfs file, read-only, in the way that " +
			"the site has chosen for squashfs files of users (docs/images.md).\n\n" +
			"`tmpfs:DST[:FLAGS]` mounts an empty file system in memory, shared by the tasks of a node. It takes `ro`, `noexec`, " +
			"`size=` as bytes, with the suffix `k`, `m` or `g`, or in percent of the memory, and `mode=` (1777). " +
			"`umount:DST` takes back what the site, or an earlier entry, mounts at DST, the home directory too.",
	},
	{
		Name: Workdir, Arg: "PATH",
		Usage: "start tasks in this directory of the container",
		Doc: "Without it tasks start in the step's working directory where the container shows that same directory, " +
			"and in the image's WORKDIR otherwise.",
	},
	{
		Name: Env, Arg: "NAME[=VALUE][,...]",
		Usage: "let these variables win over the image's",
		Doc: "All variables of the step enter the container, and the image's own settings win. " +
			"A NAME listed here keeps the step's value; NAME=VALUE sets it; -NAME removes it.",
	},
	{
		Name:  Writable,
		Usage: "let the step write to the container's root file system",
		Doc: "What is written is shared by the tasks of a node, kept in memory and gone with the step, unless it has a name " +
			"(`--container-name`) or is saved (`--container-save`). Most files of an image are root's to change: " +
			"`--container-remap-root` makes you root.",
	},
	{
		Name: Readonly, Negates: Writable,
		Usage: "make the container's root file system read-only",
	},
	{
		Name:  MountHome,
		Usage: "mount the home directory",
		Doc:   "It appears at the same path as on the host.",
	},
	{
		Name: NoMountHome, Negates: MountHome,
		Usage: "do not mount the home directory",
	},
	{
		Name:  Entrypoint,
		Usage: "run the image's entrypoint in front of the command",
		Doc: "As with docker: each task executes the ENTRYPOINT of the image with the command as its arguments, in the " +
			"container, as the user. What it prints is the task's output. The image's CMD does not matter, because Slurm " +
			"always has a command. Without this option the command is executed directly. Cannot be used with `--multi-prog`.",
	},
	{
		Name: NoEntrypoint, Negates: Entrypoint,
		Usage: "execute the command without the image's entrypoint",
	},
	{
		Name:  EntrypointLog,
		Usage: "say which entrypoint is run",
		Doc:   "One line on standard error for each node.",
	},
	{
		Name: Inherit, OnlySlurm: true,
		Usage: "start steps of the batch script with its container options",
		Doc: "What srun is given itself comes first. It has to be in the image, with Slurm's configuration and a way to its " +
			"daemons. The same is true of the shell of `salloc` where that is a step.",
	},
	{
		Name: NoInherit, Negates: Inherit, OnlySlurm: true,
		Usage: "start steps of the batch script without a container, unless they ask for one",
	},
	{
		Name:  RemapRoot,
		Usage: "be root in the container",
		Doc: "Your user and group appear as 0, in a user namespace where no others exist; to the host you are who you are. " +
			"You may change all files of the image, so that packages can be installed. Changing a file's owner, or becoming " +
			"another user, succeeds without effect (apt wants `-o APT::Sandbox::User=root`). The home directory stays " +
			"where it is. Mounting, tracing others and configuring the network remain forbidden. Needs Linux 6.2.",
	},
	{
		Name: NoRemapRoot, Negates: RemapRoot,
		Usage: "be yourself in the container",
	},
	{
		Name: Unshare, Arg: "NAMESPACE[,...]",
		Usage: "give the container these namespaces of its own",
		Doc: "The tasks of a node share them. `net`: a network with a loopback device only; `ipc`: shared memory, message " +
			"queues, `/dev/shm` and `/dev/mqueue`; `uts`: the host name; `pid`: processes. With `pid` a small reaper is " +
			"process 1, and each task has a parent of Brolga's outside the namespace; it cannot be used with `--multi-prog`. " +
			"MPI between the tasks of a node may need that they are not in namespaces of their own.",
	},
	{
		Name:  Init,
		Usage: "have process 1 of the container reap what tasks leave",
		Doc:   "The same as `--container-unshare=pid`, and may be given with it.",
	},
	{
		Name: Device, Arg: "VENDOR/CLASS=NAME|PATH[:DST][,...]",
		Usage: "show devices of the host",
		Doc: "`VENDOR/CLASS=NAME` is a device of the node's CDI specifications, such as `nvidia.com/gpu=0`, with the libraries and " +
			"variables that belong to it. A PATH is below `/dev`; DST defaults to it, and `:rwm` may follow. Who may use a device is " +
			"decided by its owner and mode on the host, and by what Slurm gave to the step. The GPUs that Slurm gave to the step " +
			"are there without this option; `none` leaves them out. See [gpu.md](gpu.md).",
	},
	{
		Name: Name, OnlySlurm: true, Arg: "NAME[:auto|create|exec|no_exec]",
		Usage: "keep the container's files under a name, or use what has it",
		Doc: "What is written to the root file system is kept on each node for later steps with the same NAME, which run on it; " +
			"the image of the first step stays the container's, and later ones need not name it. If a step with that name runs on the node, " +
			"a new one joins its container: mounts and the like are then those of the first. `auto` (default) does all this. `create`: " +
			"it is an error if the name is taken. `exec`: only join a container that runs. `no_exec`: it is an error if one runs, " +
			"since two cannot share what they write. The site decides whether names last for the job or for the user, and how large a " +
			"container may become. See [jobs.md](jobs.md).\n\n" +
			"NAME has up to 64 letters, digits, `_`, `-` and dots. `JOB.STEP` (`123.0`, `123.batch`) joins the container of that step of yours, " +
			"named or not; give `--overlap`, and `--jobid` where it is another job's.",
	},
	{
		Name: SSH, OnlySlurm: true,
		Usage: "let the containers of the step log in to each other",
		Doc: "`ssh NODE COMMAND`, `scp`, `sftp`, `rsync` and launchers that use ssh work between the nodes of the step, without " +
			"a password or keys of yours. Commands run in the container of the node, as you, with the environment of a task. " +
			"Keys and servers are the step's and end with it. Tasks start when all servers are there, as with " +
			"`--container-sync`. Cannot be used with a network of the container's own or `--container-remap-root`. See [ssh.md](ssh.md).",
	},
	{
		Name: NoSSH, OnlySlurm: true, Negates: SSH,
		Usage: "let the containers of the step not log in to each other",
	},
	{
		Name: Save, OnlySlurm: true, Arg: "PATH",
		Usage: "write the root file system to a squashfs file when the step ends",
		Doc: "The image with what the step has changed, without what is mounted in it, as a file that `--container-image=PATH` runs. It is " +
			"written by the first node of the step, when the last task there has ended, and replaces a file of that name in one " +
			"go. The step ends when the file is there; if it cannot be written, the task that ends last fails. `%n` stands for the number of " +
			"the node in the step, `%N` for its name, and then every node writes a file; `%j` is the job, `%s` the step and `%%` a `%`. " +
			"The directory has to exist where the step is submitted as well. Steps of a batch script do not inherit this option. It " +
			"cannot be used with `--multi-prog`. See [jobs.md](jobs.md).",
	},
	{
		Name: MPI, Arg: "NAME", Optional: true,
		Usage: "use the host's MPI in place of the image's",
		Doc: "The site names the MPIs of the host; without NAME it is the site's choice. The libraries of the image that a program " +
			"is linked with are covered by those of the host, if their ABI fits; an error names both versions if it does not. " +
			"A site may do that for all images that it fits, and tells you of those that it does not. See [hooks.md](hooks.md).",
	},
	{
		Name: NoMPI, Negates: MPI,
		Usage: "use the image's own MPI",
	},
	{
		Name:  Glibc,
		Usage: "use the host's C library in place of an older one of the image",
		Doc: "Wanted where libraries of the host, an MPI for example, need a newer GNU C library than the image has. An image whose " +
			"C library is as new keeps it; one without the GNU C library is an error. See [hooks.md](hooks.md).",
	},
	{
		Name: NoGlibc, Negates: Glibc,
		Usage: "use the image's own C library",
	},
	{
		Name: MountSet, Arg: "NAME[,...]", Optional: true,
		Usage: "add these sets of the site's libraries, mounts and devices",
		Doc: "`brolga hooks` lists them. Without NAME all of them. A site may give some to all containers, or to those of images " +
			"that have a certain library. See [hooks.md](hooks.md).",
	},
	{
		Name: NoMountSet, Negates: MountSet,
		Usage: "add none of the site's sets",
	},
	{
		Name: Sync, OnlySlurm: true,
		Usage: "start no task before the containers of all nodes are ready",
		Doc: "The nodes of the step tell each other over the network, so that a program finds what hooks have started on the " +
			"others. If one of them fails, all end at once with its name. Each step of a batch script waits for its own nodes. " +
			"See [jobs.md](jobs.md).",
	},
	{
		Name: Environment, Arg: "NAME|FILE",
		Usage: "take image and options from an environment definition file",
		Doc: "A FILE begins with a slash or a dot or ends with `.toml`; it is a regular file of at most 1 MiB. NAME.toml is looked for in the directories of `EDF_PATH` " +
			"(default `~/.edf`), then in those of the site. It is read where the step is submitted. Its keys are `image`, " +
			"`mounts` (a list of entries as in `--container-mounts`; relative paths start where you are), `workdir`, " +
			"`entrypoint`, `writable`, `devices` (a list of entries as in `--container-device`), the tables `env` (an empty value removes the variable) and `annotations`, and " +
			"`base_environment`, a name or a list of names of files that come before it. `${NAME}` in values is a variable of " +
			"yours, which must be set, `${NAME:-TEXT}` has a default, and `$${NAME}` is written for `${NAME}`. Options of the " +
			"command line win over the file, and the file over variables; mounts, variables and annotations add up.",
	},
	{
		Name: Annotation, Arg: "KEY=VALUE[,...]",
		Usage: "annotate the container for the site's hooks",
		Doc:   "A backslash makes a following comma part of a value. The site says which annotations mean something.",
	},
	{
		Name: Pull, Arg: "missing|always|never",
		Usage: "when to ask the registry for the image",
		Doc: "`missing` (default): if it is not in your cache. `always`: also whether the tag has changed, once, where the step is " +
			"submitted. `never`: not at all; an image that is not in your cache is an error. Signatures that the site wants must be in the cache, too.",
	},
	{
		Name: Platform, Arg: "[OS/]ARCHITECTURE[/VARIANT]",
		Usage: "choose the image for this kind of node",
		Doc: "For example `linux/arm64`. Without it the image is chosen for the machine where it is pulled. Wanted where a step is " +
			"submitted from another kind of machine than it runs on.",
	},
	{
		Name:  Verbose,
		Usage: "say more about what is done",
		Doc:   "Which image the step runs, and what the time went to on each node.",
	},
	{
		Name: Quiet, Negates: Verbose,
		Usage: "say only what has gone wrong",
	},
	{
		Name:  DryRun,
		Usage: "print what would be run, as JSON, and run nothing",
		Doc: "The request as it was understood, and the OCI specification of the container. Nothing is submitted, but the image " +
			"is pulled if it is missing. The nodes may be configured in another way.",
	},
}

// EnvName returns the environment variable that does the same as the option, or
// "" for a flag that negates another: that is the other's variable set to 0.
func (o Option) EnvName() string {
	if o.Negates != "" {
		return ""
	}
	return "BROLGA_" + strings.ToUpper(strings.ReplaceAll(o.Name, "-", "_"))
}

// Short returns the name that the option has on "brolga run" as well, where
// everything is about a container.
func (o Option) Short() string { return strings.Replace(o.Name, "container-", "", 1) }

// Synopsis returns the option as it is written under a name, with its argument.
func (o Option) Synopsis(name string) string {
	switch {
	case o.Arg == "":
		return "--" + name
	case o.Optional:
		return "--" + name + "[=" + o.Arg + "]"
	}
	return "--" + name + "=" + o.Arg
}
