// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// runGC removes what killed processes have left, and the images that were not used for the
// longest time, as the limits say. It does that in the user's cache, for root and the store
// owner in the stores, and for root in the node's named containers.
func runGC(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	ofStore := fs.Bool("store", false, "collect in the store, as root or its owner")
	ofContainers := fs.Bool("containers", false, "collect named containers on this node, as root; without limits those that were not used for named.unused")
	limits := expire.Limits{MaxSize: -1}
	fs.BoolVar(&limits.DryRun, "dry-run", false, "say what would be removed, and remove nothing")
	fs.Func("max-size", "remove images, the one not used for the longest time first, until they have no more than `SIZE`, such as 20g", func(text string) error {
		size, err := config.ParseSize(text)
		limits.MaxSize = int64(size)
		return err
	})
	fs.Func("older-than", "remove only images that were not used for this `TIME`, such as 12h or 30d; with --max-size both must hold", func(text string) (err error) {
		limits.Unused, err = parseAge(text)
		return err
	})
	if err := v.parse(fs, args, 0, 0); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	collect := collectCache
	switch {
	case *ofStore && *ofContainers:
		return usagef("gc: --store and --containers cannot be given together")
	case *ofStore:
		collect = collectStores
	case *ofContainers:
		collect = collectContainers
	}
	did := "removed"
	if limits.DryRun {
		did = "would remove"
	}
	var count int
	var total int64
	err = collect(ctx, conf, limits, func(r expire.Removed) {
		count++
		total += r.Size
		fmt.Printf("%s %s %s (%s)\n", did, r.What, printable(r.Name), mebibytes(r.Size))
	})
	if err == nil || count > 0 {
		fmt.Printf("%s %d, %s\n", did, count, mebibytes(total))
	}
	return err
}

// parseAge reads a time span, in which a day has 24 hours.
func parseAge(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	age, err := time.ParseDuration(text)
	if err != nil || age < 0 {
		return 0, fmt.Errorf("%q is not a time such as 12h or 30d", text)
	}
	return age, nil
}

func collectCache(ctx context.Context, conf config.Config, limits expire.Limits, tell func(expire.Removed)) error {
	l, err := openCache(conf)
	if errors.Is(err, layout.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	// Each of the two may be as large as the limit.
	return errors.Join(l.Collect(ctx, limits, tell), collectOwn(ctx, l, limits, tell))
}

func collectStores(ctx context.Context, conf config.Config, limits expire.Limits, tell func(expire.Removed)) error {
	stores, err := openStores(conf)
	if err != nil {
		return err
	}
	var errs []error
	for _, st := range stores {
		errs = append(errs, st.Collect(ctx, limits, tell))
	}
	return errors.Join(errs...)
}
