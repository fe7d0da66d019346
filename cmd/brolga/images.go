// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
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
	LastUsed  time.Time `json:"lastUsed"`       // to an hour or so
	User      string    `json:"user,omitempty"` // who has it, or first wanted it in the store
	Store     bool      `json:"store"`          // it is in the store
	Own       bool      `json:"own,omitempty"`  // it is converted in the cache, by brolga run
	In        string    `json:"in,omitempty"`   // the directory of that store
}

// runImages lists the user's cached images, or, for root and the store owner,
// those of the stores.
func runImages(_ context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	quiet := fs.Bool("quiet", false, "print digests alone")
	fs.BoolVar(quiet, "q", false, "short for --quiet")
	ofStore := fs.Bool("store", false, "list the store, as root or its owner")
	if err := v.parse(fs, args, 0, 0); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	list, print := listCache, printCache
	if *ofStore {
		list, print = listStore, printStore
	}
	all, err := list(conf)
	if err != nil && len(all) == 0 {
		return err
	}
	switch {
	case *asJSON:
		return errors.Join(err, printJSON(all))
	case *quiet:
		for _, i := range all {
			fmt.Println(i.Digest)
		}
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	print(w, all)
	return errors.Join(err, w.Flush())
}

func printCache(w io.Writer, all []listed) {
	fmt.Fprintln(w, "REFERENCE\tDIGEST\tSIZE\tCREATED\tLAST USED\tSTORE")
	for _, i := range all {
		in := "no"
		switch {
		case i.Store && i.Own:
			in = "yes, own"
		case i.Store:
			in = "yes"
		case i.Own:
			in = "own"
		}
		fmt.Fprintf(w, "%s\t%.19s\t%s\t%s\t%s\t%s\n", i.Reference, i.Digest, mebibytes(i.Size), minute(i.Created), minute(i.LastUsed), in)
	}
}

func printStore(w io.Writer, all []listed) {
	fmt.Fprintln(w, "REFERENCE\tDIGEST\tSIZE\tCREATED\tLAST USED\tWHO\tIN")
	for _, i := range all {
		fmt.Fprintf(w, "%s\t%.19s\t%s\t%s\t%s\t%s\t%s\n", i.Reference, i.Digest, mebibytes(i.Size), minute(i.Created), minute(i.LastUsed), i.User, i.In)
	}
}

func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", (n+1<<19)>>20) }

// minute prints a time for people; "-" if there is none.
func minute(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
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
			all = append(all, listed{
				Reference: printable(m.Name), Digest: m.Digest, Size: m.Size, Created: m.Created, LastUsed: m.Used,
				User: printable(m.User), Store: true, In: st.Dir(),
			})
		}
	}
	return all, errors.Join(errs...)
}

func listCache(conf config.Config) ([]listed, error) {
	all := []listed{}
	u, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("find out who calls: %w", err)
	}
	l, err := openCache(conf)
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
	st, own := store.NewTiers(conf.Store, identity.User{}), openOwn(l)
	for _, d := range index.Manifests {
		if layout.Signed(d.Annotations[layout.RefName]) != "" {
			continue // goes with its image
		}
		i := listed{Reference: printable(d.Annotations[layout.RefName]), Digest: d.Digest, LastUsed: l.Used(d), User: u.Username}
		if m, err := l.Manifest(d.Digest, layout.Host()); err == nil {
			for _, b := range m.Layers {
				i.Size += b.Size
			}
			i.Created = created(l, m)
			i.Store, i.Own = st.Has(m.Digest), own.Has(m.Digest)
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
