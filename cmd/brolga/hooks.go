// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/brolga-hpc/brolga/hooks"
	"github.com/brolga-hpc/brolga/hooks/mountset"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/hook"
	"github.com/brolga-hpc/brolga/pkg/hook/external"
)

// listedHook is how a hook is shown.
type listedHook struct {
	Name   string `json:"name"`
	Moment string `json:"moment"`
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
		listed = append(listed, listedHook{h.Name(), d.Moment, d.When, d.Effect})
		if h.Name() == (mountset.Hook{}).Name() {
			listed = append(listed, mountSets(conf)...)
		}
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

// mountSets lists the site's sets, which are one hook.
func mountSets(conf config.Config) []listedHook {
	var all []listedHook
	for _, s := range conf.MountSets {
		d := mountset.Describe(s)
		all = append(all, listedHook{"mountset " + s.Name, d.Moment, d.When, d.Effect})
	}
	return all
}

func printHooks(all []listedHook, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOOK\tMOMENT\tWHEN\tEFFECT")
	for _, h := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(h.Name), h.Moment, printable(h.When), printable(h.Effect))
	}
	return w.Flush()
}
