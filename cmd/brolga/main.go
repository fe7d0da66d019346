// SPDX-License-Identifier: Apache-2.0

// Brolga manages the images that srun --container-image runs, and runs them where
// there is no Slurm.
//
// It works as the user who calls it, with that user's credentials and cache, and
// needs no privilege. The compute nodes call it too: as the user to pull, as the
// store owner to convert.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// Exit statuses. docs/images.md has them for users.
const (
	exitOK      = 0
	exitFailure = 1   // the error was printed; also of verify, when it found damage
	exitUsage   = 2   // the command line was wrong
	exitRun     = 125 // of run, which has the command's status otherwise; as docker
)

// verb is one thing that brolga does. Its run function is in the file of the
// same name.
type verb struct {
	name  string
	args  string
	usage string
	run   func(ctx context.Context, v verb, args []string) error
}

// verbs are shown in this order by brolga help; those without usage are not.
func verbs() []verb {
	return []verb{
		{"run", "[OPTION...] IMAGE [COMMAND...]", "run a command in a container, without Slurm", runRun},
		{"pull", "[--quiet] IMAGE", "fetch an image into your cache", runPull},
		{"login", "[--username USER] REGISTRY", "keep a password for a registry", runLogin},
		{"logout", "REGISTRY", "remove what is kept for a registry", runLogout},
		{"load", "[--name NAME] FILE...", "put images of archives and other files into your cache", runLoad},
		{"export", "[--force] IMAGE FILE", "write an image to FILE.sqsh, oci:DIR or oci-archive:FILE", runExport},
		{"images", "[--json] [--quiet] [--store]", "list the images in your cache, or in the store", runImages},
		{"inspect", "[--json] [--store] IMAGE", "show an image's configuration, layers and history", runInspect},
		{"rmi", "[--force] [--store] IMAGE...", "remove images from your cache, or from the store", runRmi},
		{"containers", "[--json]", "list your named containers on this node", runContainers},
		{"rm", "NAME...", "remove named containers of yours from this node", runRm},
		{"gc", "[OPTION...]", "remove what was not used: images of your cache or the store, or named containers", runGC},
		{"verify", "[--repair] [--store] [IMAGE...]", "compare images with their digests", runVerify},
		{"hooks", "[--json]", "list what containers get beyond their image, and when", runHooks},
		{"version", "", "print the version", runVersion},
		{"help", "", "print this text", runHelp},
		{"convert", "", "", runConvert}, // internal: see convert.go
		{"squash", "", "", runSquash},   // internal: see convert.go
		{"save", "", "", runSave},       // internal: see save.go
		{"spec", "", "", runSpec},       // internal: see spec.go
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), ending()...)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// ending returns the signals that end this program: those that whoever started it,
// nohup for example, has not told it to ignore. A command that takes its place
// ignores the same.
func ending() []os.Signal {
	return slices.DeleteFunc([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
}

func run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		help(os.Stderr)
		return exitUsage
	}
	name := args[0]
	if name == "-h" || name == "--help" {
		name = "help"
	}
	for _, v := range verbs() {
		if v.name == name {
			return report(v.run(ctx, v, args[1:]))
		}
	}
	return report(usagef("%s is not a command of brolga", fault.Line(fmt.Errorf("%q", name))))
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fault.WithHint(fmt.Errorf(format, args...), `"brolga help" lists the commands`)}
}

// misused reports a mistake in the arguments of a verb.
func (v verb) misused(err error) error {
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok { // of package flag
		err = fmt.Errorf("unknown option --%s", name)
	}
	return usageError{fault.WithHint(fmt.Errorf("%s: %w", v.name, err), fmt.Sprintf(`"brolga %s --help" lists the options`, v.name))}
}

func (u usageError) Unwrap() error { return u.error }

// report prints err and returns the exit status it means.
func report(err error) int {
	var usage usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	}
	fmt.Fprint(os.Stderr, fault.Format("brolga: ", err))
	if errors.As(err, new(runError)) {
		return exitRun
	}
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}

// flags returns the flag set of a verb. Its usage is printed for --help alone;
// a mistake is reported in one line like any other.
func (v verb) flags() *flag.FlagSet {
	fs := flag.NewFlagSet(v.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// parse parses the arguments of a verb, of which min to max remain.
func (v verb) parse(fs *flag.FlagSet, args []string, min, max int) error {
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Printf("usage: brolga %s %s\n\n%s\n\n", v.name, v.args, v.usage)
		fs.SetOutput(os.Stdout)
		fs.PrintDefaults()
		return err
	}
	if n := fs.NArg(); err == nil && (n < min || n > max) {
		err = fmt.Errorf("want %s", v.args)
	}
	if err != nil {
		return v.misused(err)
	}
	return nil
}

func runHelp(_ context.Context, _ verb, _ []string) error {
	help(os.Stdout)
	return nil
}

func help(w io.Writer) {
	fmt.Fprint(w, "usage: brolga COMMAND [ARGUMENT...]\n\n")
	for _, v := range verbs() {
		if v.usage != "" {
			fmt.Fprintf(w, "  %-10s %-34s %s\n", v.name, v.args, v.usage)
		}
	}
	fmt.Fprint(w, "\n\"brolga COMMAND --help\" lists the options of a command.\n")
}
