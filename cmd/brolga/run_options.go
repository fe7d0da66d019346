// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/option"
)

// parse reads the command line and the site's configuration.
func (l *runner) parse(v verb, args []string) (err error) {
	fs := v.flags()
	configPath := configFlag(fs)
	for _, o := range option.Table {
		value := given{o, &l.call.Given}
		fs.Var(value, o.Name, "")
		if o.Short() != o.Name {
			fs.Var(value, o.Short(), "")
		}
	}
	err = fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		runUsage(os.Stdout, v)
		return err
	}
	if err != nil {
		return v.misused(err)
	}
	l.command = fs.Args()
	if l.conf, err = loadConfig(*configPath); err != nil {
		return err
	}
	l.conf.Container.AllowRoot = true // that is about jobs
	l.confPath = *configPath
	return l.checkOptions()
}

// given collects an option of the table, in the order of the command line.
type given struct {
	option.Option
	all *[][2]string
}

// Set implements flag.Value. For an option without its argument the value is
// "true".
func (g given) Set(value string) error {
	switch {
	case g.Arg == "" && value != "true":
		return errors.New("it takes no value")
	case g.Arg == "", g.Optional && value == "true":
		value = ""
	}
	*g.all = append(*g.all, [2]string{g.Name, value})
	return nil
}

// String implements flag.Value.
func (given) String() string { return "" }

// IsBoolFlag tells package flag that the argument may be missing.
func (g given) IsBoolFlag() bool { return g.Arg == "" || g.Optional }

func runUsage(w io.Writer, v verb) {
	fmt.Fprintf(w, "usage: brolga %s %s\n\n%s\n\n", v.name, v.args, v.usage)
	for _, o := range option.Table {
		if !o.OnlySlurm && o.Name != option.Image {
			fmt.Fprintf(w, "  %s\n    \t%s\n", o.Synopsis(o.Short()), o.Usage)
		}
	}
	fmt.Fprint(w, "\nEach can be written as srun has it, too: --container-mounts for --mounts.\n"+
		"Without COMMAND the image's own is run. IMAGE is left out where --environment names one.\n")
}

// checkOptions refuses what is about jobs. Variables may say it for other commands.
func (l *runner) checkOptions() error {
	var errs []error
	for _, g := range l.call.Given {
		for _, o := range option.Table {
			if o.Name == g[0] && o.OnlySlurm {
				errs = append(errs, fault.WithHint(fmt.Errorf("--%s means nothing without Slurm", o.Name), "leave it out, or use srun"))
			}
		}
	}
	return errors.Join(errs...)
}

// withoutJobs returns the environment less the variables of options that mean
// nothing here: a user has them for srun.
func withoutJobs(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		return slices.ContainsFunc(option.Table, func(o option.Option) bool {
			return o.OnlySlurm && o.Negates == "" && strings.HasPrefix(v, o.EnvName()+"=")
		})
	})
}
