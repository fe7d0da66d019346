// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/brolga-hpc/brolga/pkg/bundle/rootfs"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/named"
)

// runContainers lists the named containers of the calling user on this node.
func runContainers(_ context.Context, v verb, args []string) error {
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
	all, err := named.List(conf.Named)
	if err != nil {
		return err
	}
	if *asJSON {
		if all == nil {
			all = []named.Listed{}
		}
		return printJSON(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tNODE\tJOB\tSIZE\tUSED\tIMAGE")
	for _, c := range all {
		job := "any"
		if c.Job != 0 {
			job = fmt.Sprint(c.Job)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", printable(c.Name), printable(c.Node), job, mebibytes(c.Size), c.Used.Local().Format(time.DateTime), printable(c.Image))
	}
	return w.Flush()
}

// runRm removes named containers of the calling user on this node.
func runRm(_ context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	if err := v.parse(fs, args, 1, 1000); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	all, err := named.List(conf.Named)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range fs.Args() {
		found := false
		for _, c := range all {
			if c.Name == name {
				found = true
				errs = append(errs, c.Remove())
			}
		}
		if !found {
			errs = append(errs, fault.WithHint(fmt.Errorf("%s: no container of yours on this node has that name", printable(name)), `"brolga containers" lists them`))
		}
	}
	return errors.Join(errs...)
}

// collectContainers removes named containers on this machine, whatever its nodes
// are called. Identity: root.
func collectContainers(ctx context.Context, conf config.Config, limits expire.Limits, tell func(expire.Removed)) error {
	if os.Geteuid() != 0 {
		return fault.WithHint(errors.New("only root may collect containers"), `"brolga rm" removes your own`)
	}
	nodes, err := filepath.Glob(filepath.Join(conf.Named.Directory, "[^.]*"))
	if err != nil {
		return err
	}
	unused := limits.Unused
	if unused == 0 && limits.MaxSize < 0 {
		unused = time.Duration(conf.Named.Unused)
	}
	var errs []error
	for _, dir := range nodes {
		node := filepath.Base(dir)
		errs = append(errs, named.Collect(conf.Named, node, named.Limits{
			Unused: unused, MaxSize: limits.MaxSize, DryRun: limits.DryRun, InUse: rootfs.InUse,
			Jobs: func() (map[uint32]bool, error) { return named.Jobs(ctx, conf.Named, node, os.Environ()) },
		}, tell))
	}
	return errors.Join(errs...)
}
