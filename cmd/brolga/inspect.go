// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// inspected is what brolga inspect knows of an image.
type inspected struct {
	Reference string          `json:"reference"`
	Digest    string          `json:"digest"`             // that the reference means
	Manifest  string          `json:"manifest"`           // digest for this platform
	Platform  string          `json:"platform"`           // such as linux/amd64
	Created   time.Time       `json:"created"`            // the image, or its entry of the store
	LastUsed  time.Time       `json:"lastUsed"`           // to an hour or so
	User      string          `json:"user,omitempty"`     // who first wanted it in the store
	Size      int64           `json:"size"`               // of the compressed layers, or of the squashfs
	Squashfs  string          `json:"squashfs,omitempty"` // digest of the squashfs
	Config    inspectedConfig `json:"config"`
	Layers    []layer         `json:"layers,omitempty"`
	History   []history       `json:"history,omitempty"`
	Stores    []inStore       `json:"stores"` // that have the image
}

type inspectedConfig struct {
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	WorkingDir string            `json:"workingDir,omitempty"`
	User       string            `json:"user,omitempty"`
	Env        []string          `json:"env,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

type layer struct {
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	Cached    bool   `json:"cached"`
}

type history struct {
	Created    time.Time `json:"created"`
	CreatedBy  string    `json:"createdBy,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	EmptyLayer bool      `json:"emptyLayer,omitempty"`
}

type inStore struct {
	Dir      string    `json:"dir"`
	Size     int64     `json:"size"`
	LastUsed time.Time `json:"lastUsed"`
}

// runInspect shows what is known of an image in the user's cache or, for root and
// the store owner, in the stores.
func runInspect(_ context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	ofStore := fs.Bool("store", false, "look into the store, as root or its owner")
	if err := v.parse(fs, args, 1, 1); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	match, err := matcher(fs.Arg(0))
	var i inspected
	switch {
	case err != nil:
	case *ofStore:
		i, err = inspectStored(conf, match)
	default:
		i, err = inspectCached(conf, match)
	}
	if err != nil {
		return fmt.Errorf("inspect %s: %w", printable(ref.Shown(fs.Arg(0))), err)
	}
	if *asJSON {
		return printJSON(i)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	i.print(w)
	return w.Flush()
}

func inspectStored(conf config.Config, match func(string, string) bool) (inspected, error) {
	stores, err := openStores(conf)
	if err != nil {
		return inspected{}, err
	}
	for _, st := range stores {
		all, err := st.List()
		for _, m := range all {
			if match(m.Name, m.Digest) {
				return inspected{
					Reference: m.Name, Digest: m.Digest, Manifest: m.Digest, Platform: m.Platform,
					Created: m.Created, LastUsed: m.Used, User: m.User, Size: m.Size, Squashfs: m.Squashfs,
					Config: inspectedConfig{m.Config.Entrypoint, m.Config.Cmd, m.Config.WorkingDir, m.Config.User, m.Config.Env, m.Config.Labels},
					Stores: whereStored(stores, m.Digest),
				}, nil
			}
		}
		if err != nil {
			return inspected{}, err
		}
	}
	return inspected{}, store.ErrNotFound
}

func inspectCached(conf config.Config, match func(string, string) bool) (inspected, error) {
	l, err := openCache(conf)
	if err != nil {
		return inspected{}, err
	}
	index, err := l.Index()
	if err != nil {
		return inspected{}, err
	}
	for _, d := range index.Manifests {
		if match(d.Annotations[layout.RefName], d.Digest) {
			return readCached(conf, l, d)
		}
	}
	return inspected{}, layout.ErrNotFound
}

func readCached(conf config.Config, l *layout.Layout, d layout.Descriptor) (inspected, error) {
	m, err := l.Manifest(d.Digest, layout.Host())
	if err != nil {
		return inspected{}, err
	}
	raw, err := l.ReadBlob(m.Config.Digest, layout.MaxManifest)
	if err != nil {
		return inspected{}, fmt.Errorf("read configuration: %w", err)
	}
	var doc struct {
		layout.Platform
		Created time.Time
		Config  inspectedConfig
		History []struct {
			Created    time.Time
			CreatedBy  string `json:"created_by"`
			Comment    string
			EmptyLayer bool `json:"empty_layer"`
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return inspected{}, fmt.Errorf("read configuration: %w", err)
	}
	i := inspected{
		Reference: d.Annotations[layout.RefName], Digest: d.Digest, Manifest: m.Digest,
		Platform: doc.Platform.String(), Created: doc.Created, LastUsed: l.Used(d), Config: doc.Config,
		Stores: whereStored(store.NewTiers(conf.Store, identity.User{}), m.Digest),
	}
	for _, b := range m.Layers {
		i.Size += b.Size
		i.Layers = append(i.Layers, layer{b.Digest, b.MediaType, b.Size, l.Has(b)})
	}
	for _, h := range doc.History {
		i.History = append(i.History, history(h))
	}
	return i, nil
}

// whereStored asks only what everyone may ask.
func whereStored(stores store.Tiers, digest string) []inStore {
	all := []inStore{}
	for _, st := range stores {
		if size, used, err := st.Stat(digest); err == nil {
			all = append(all, inStore{st.Dir(), size, used})
		}
	}
	return all
}

// print writes what is there, one thing a line.
func (i inspected) print(w io.Writer) {
	line := func(name string, values ...string) {
		for n, v := range values {
			if n > 0 {
				name = ""
			}
			if v != "" {
				fmt.Fprintf(w, "%s\t%s\n", name, printable(v))
			}
		}
	}
	line("Reference", i.Reference)
	line("Digest", i.Digest)
	if i.Manifest != i.Digest {
		line("Manifest", i.Manifest)
	}
	line("Platform", i.Platform)
	line("Created", minute(i.Created))
	line("Last used", minute(i.LastUsed))
	line("Who", i.User)
	line("Size", mebibytes(i.Size))
	line("Squashfs", i.Squashfs)
	line("Entrypoint", quoted(i.Config.Entrypoint))
	line("Command", quoted(i.Config.Cmd))
	line("Directory", i.Config.WorkingDir)
	line("User", i.Config.User)
	line("Environment", i.Config.Env...)
	for n, key := range slices.Sorted(maps.Keys(i.Config.Labels)) {
		line([]string{"Labels", ""}[min(n, 1)], key+"="+i.Config.Labels[key])
	}
	var layers, past, stores []string
	for _, l := range i.Layers {
		state := "not in the cache"
		if l.Cached {
			state = "cached"
		}
		layers = append(layers, fmt.Sprintf("%s %s, %s", l.Digest, mebibytes(l.Size), state))
	}
	line("Layers", layers...)
	for _, h := range i.History {
		past = append(past, strings.TrimSpace(minute(h.Created)+" "+h.CreatedBy+" "+h.Comment))
	}
	line("History", past...)
	for _, s := range i.Stores {
		stores = append(stores, fmt.Sprintf("%s, %s, last used %s", s.Dir, mebibytes(s.Size), minute(s.LastUsed)))
	}
	if stores == nil {
		stores = []string{"not there"}
	}
	line("Store", stores...)
}

// quoted returns the words as JSON, the form that image configurations have.
func quoted(words []string) string {
	if len(words) == 0 {
		return ""
	}
	text, err := json.Marshal(words)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
