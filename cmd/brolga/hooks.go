// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/brolga-hpc/brolga/hooks"
	"github.com/brolga-hpc/brolga/hooks/mountset"
	"github.com/brolga-hpc/brolga/hooks/mpi"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/hook/external"
)

// listedHook is how a hook is shown.
type listedHook struct {
	Name   string `json:"name"`
	Stage  string `json:"moment"`
	When   string `json:"when"`
	Effect string `json:"effect"`
}

// runHooks prints the hooks of this node in the order in which they run. Those
// that cannot be used are the error, and so a step's.
func runHooks(_ context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	if err := v.parse(fs, args, 0, 0); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	all, err := allHooks(conf)
	listed := []listedHook{}
	for _, h := range all {
		d := h.Describe()
		listed = append(listed, listedHook{h.Name(), d.Stage, d.When, d.Effect})
		listed = append(listed, offers(conf, h)...)
	}
	if printErr := printHooks(listed, *asJSON); printErr != nil {
		return printErr
	}
	return err
}

// allHooks returns the hooks of this node, with an error also those that are
// right.
func allHooks(conf config.Config) ([]hook.Hook, error) {
	described, err := external.Load(conf.Hooks.Directories)
	return append(hooks.All(), external.Hooks(described, external.Options{Timeout: time.Duration(conf.Hooks.Timeout)})...), err
}

// offers lists what the site offers by name for one hook.
func offers(conf config.Config, h hook.Hook) []listedHook {
	var all []listedHook
	add := func(name string, d hook.Description) {
		all = append(all, listedHook{h.Name() + " " + name, d.Stage, d.When, d.Effect})
	}
	switch h.(type) {
	case mountset.Hook:
		for _, s := range conf.MountSets {
			add(s.Name, mountset.Describe(s))
		}
	case mpi.Hook:
		for _, m := range conf.MPI {
			add(m.Name, mpi.Describe(m, conf.Container.MPI == m.Name))
		}
	}
	return all
}

func printHooks(all []listedHook, asJSON bool) error {
	if asJSON {
		return printJSON(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOOK\tMOMENT\tWHEN\tEFFECT")
	for _, h := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(h.Name), h.Stage, printable(h.When), printable(h.Effect))
	}
	return w.Flush()
}
