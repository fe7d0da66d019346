// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// listed is one line of brolga images.
type listed struct {
	Reference string    `json:"reference"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"` // of the compressed layers, or of the squashfs
	Created   time.Time `json:"created"`
	Store     bool      `json:"store"` // it is in the store
}

// runImages lists the user's cached images, or, for root and the store owner,
// those of the store.
func runImages(_ context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	ofStore := fs.Bool("store", false, "list the store, as root or its owner")
	if err := v.parse(fs, args, 0, 0); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	list := listCache
	if *ofStore {
		list = listStore
	}
	all, err := list(conf)
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REFERENCE\tDIGEST\tSIZE\tCREATED\tSTORE")
	for _, i := range all {
		in := "no"
		if i.Store {
			in = "yes"
		}
		fmt.Fprintf(w, "%s\t%.19s\t%d MiB\t%s\t%s\n", i.Reference, i.Digest, (i.Size+1<<19)>>20, i.Created.Local().Format("2006-01-02 15:04"), in)
	}
	return w.Flush()
}

func listStore(conf config.Config) ([]listed, error) {
	stores, err := openStores(conf)
	if err != nil {
		return nil, err
	}
	all := []listed{}
	var errs []error
	for _, st := range stores {
		metas, err := st.List()
		errs = append(errs, err)
		for _, m := range metas {
			all = append(all, listed{m.Name, m.Digest, m.Size, m.Created, true})
		}
	}
	return all, errors.Join(errs...)
}

func listCache(conf config.Config) ([]listed, error) {
	all := []listed{}
	dir, err := cacheDir(conf)
	if err != nil {
		return nil, err
	}
	l, err := layout.Open(dir)
	if errors.Is(err, layout.ErrNotFound) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	index, err := l.Index()
	if err != nil && !errors.Is(err, layout.ErrNotFound) {
		return nil, err
	}
	st := store.NewTiers(conf.Store, identity.User{})
	for _, d := range index.Manifests {
		i := listed{Reference: printable(d.Annotations[layout.RefName]), Digest: d.Digest}
		if m, err := l.Manifest(d.Digest, layout.Host()); err == nil {
			for _, b := range m.Layers {
				i.Size += b.Size
			}
			i.Created = created(l, m)
			i.Store = st.Has(m.Digest)
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b listed) int { return strings.Compare(a.Reference, b.Reference) })
	return all, nil
}

// created returns when an image was made.
func created(l *layout.Layout, m layout.Manifest) time.Time {
	var conf struct{ Created time.Time }
	if raw, err := l.ReadBlob(m.Config.Digest, layout.MaxManifest); err == nil {
		_ = json.Unmarshal(raw, &conf)
	}
	return conf.Created
}

// printable replaces what a terminal would interpret.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
