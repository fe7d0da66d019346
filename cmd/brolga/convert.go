// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/lease"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/squash"
	"github.com/brolga-hpc/brolga/pkg/image/store"
)

// runConvert adds an image to the store. It is internal: package image calls it,
// as the store owner.
//
//	brolga convert [--config FILE] [--user NAME] [--platform PLATFORM] [--own DIR] [--verify] NAME MANIFEST-DIGEST
//
// Descriptor 3 is the manifest, 4 the configuration, 5 and following are the
// layers in the manifest's order. They belong to the user and may change while
// they are read. If the store has the image, or gets it from another process
// meanwhile, there is nothing to do.
//
// It reads the manifest itself and leaves the configuration and the layers to brolga
// squash, a process that can reach one file of the store.
//
// Where the site's policy requires a signature of images with that name, the
// evidence is on standard input. It is verified here, because here no user can
// interfere, and the store notes with the image whose signature it has. With
// --verify that is all: the store has the image.
//
// With --own the store is one of the caller's, in which all files belong to root:
// where it is used from, there is nobody else.
func runConvert(ctx context.Context, v verb, args []string) error {
	fs := v.flags()
	configPath := configFlag(fs)
	user := fs.String("user", "", "`NAME` of who wants the image, for lists")
	own := fs.String("own", "", "the caller's own store `DIR`")
	platform := fs.String("platform", "", "`PLATFORM` that the user asks for, if not this machine's")
	only := fs.Bool("verify", false, "only verify the signature of a stored image")
	if err := v.parse(fs, args, 2, 2); err != nil {
		return err
	}
	conf, err := loadConfig(*configPath)
	if err != nil {
		return err
	}
	r, err := ref.Parse(fs.Arg(0))
	if err != nil {
		return err
	}
	owner, err := convertAs(&conf, *own)
	if err != nil {
		return err
	}
	if uint32(os.Geteuid()) != owner.UID {
		return fault.WithHint(fmt.Errorf("convert %s: not the store owner, %s", r, conf.StoreOwner), "this is called where an image is used; there is no need to call it")
	}
	if err := errors.Join(command.CloseOnExec(), confine(conf.Convert)); err != nil {
		return fmt.Errorf("convert %s: %w", r, err)
	}
	wanted, err := layout.PlatformOr(*platform, layout.Host())
	if err != nil {
		return err
	}
	stores, digest := store.NewTiers(conf.Store, owner), fs.Arg(1)
	signed, err := verifySignature(conf.Policy, r, digest, os.Stdin)
	if err == nil && !*only {
		err = convert(ctx, conf, stores, order{r, *user, *own != "", wanted, *configPath}, digest)
	}
	if err == nil && len(signed) > 0 {
		err = noteSigned(ctx, stores, digest, signed)
	}
	if err != nil {
		return fmt.Errorf("convert %s: %w", r, err)
	}
	return nil
}

// convertAs returns who the image is converted for. A store of the caller's own
// takes the place of the site's.
func convertAs(conf *config.Config, own string) (identity.User, error) {
	if own == "" {
		return store.LookupOwner(conf.StoreOwner)
	}
	conf.Store, conf.StoreMaxSize, conf.StoreUserShare = config.Dirs{own}, config.Portion{}, config.Portion{}
	return identity.User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, nil
}

// order is what the store is told of an image beside its content.
type order struct {
	name     ref.Ref
	user     string
	oneOwner bool
	platform layout.Platform
	config   string // file of the site's configuration
}

// convert adds the image to the store, unless another process does. When that
// one took over because this one was stopped for a while, its result is waited
// for.
func convert(ctx context.Context, conf config.Config, stores store.Tiers, of order, digest string) error {
	st, err := stores.ForNew()
	if err != nil {
		return err
	}
	if err := st.Init(); err != nil {
		return err
	}
	in, err := readManifest(digest)
	if err != nil {
		return err
	}
	for {
		held, err := st.Lease(ctx, digest, func() bool { return st.Has(digest) })
		if errors.Is(err, lease.ErrDone) {
			return nil
		}
		if err != nil {
			return err
		}
		err = produce(held.Context(), conf, st, in, of)
		lost := held.Lost()
		if err := errors.Join(err, held.Close()); err == nil || !lost {
			return err
		}
	}
}

// produce makes the image, under its lease.
func produce(ctx context.Context, conf config.Config, st *store.Store, in input, of order) error {
	digest := in.Manifest.Digest
	if st.Has(digest) { // since before the lease was free
		return nil
	}
	limits, err := limitsOf(conf, st, of.user)
	if err == nil {
		err = limits.before(st)
	}
	if err != nil {
		return err
	}
	draft, err := st.Draft(digest)
	if err != nil {
		return err
	}
	defer draft.Discard()
	out, err := inSandbox(ctx, conf, of, in, draft.Path(), limits.most())
	if err == nil {
		err = limits.after(ctx, st, draft)
	}
	if err != nil {
		return limits.explain(err)
	}
	meta := of.meta()
	meta.Platform, meta.Config, meta.Passwd, meta.Group = out.Platform, out.Config, out.Passwd, out.Group
	if err := draft.Publish(meta); err != nil {
		return err
	}
	if limits.store > 0 {
		// What cannot be removed is no reason to fail who wants this image.
		_ = st.CollectSometimes(ctx, limits.store, limits.share.Keep)
	}
	return nil
}

// firstLayer is the descriptor of the lowest layer.
const firstLayer = 5

// input is an image as its user's descriptors have it.
type input struct {
	squash.Input
	manifest, config *os.File
}

// readManifest reads the manifest and collects the layers.
func readManifest(digest string) (input, error) {
	in := input{manifest: os.NewFile(3, "the manifest"), config: os.NewFile(4, "the configuration")}
	manifest, err := readDescriptor(in.manifest)
	if err != nil {
		return in, fmt.Errorf("read manifest: %w", err)
	}
	if got := layout.Digest(manifest); got != digest {
		return in, fmt.Errorf("manifest %s is corrupt: its content has digest %s", digest, got)
	}
	m, index, err := layout.Parse(manifest)
	if err == nil && index != nil {
		err = errors.New("it is an index")
	}
	if err != nil {
		return in, fmt.Errorf("read manifest %s: %w", digest, err)
	}
	in.Manifest = m
	for i, d := range m.Layers {
		in.Layers = append(in.Layers, os.NewFile(uintptr(firstLayer+i), d.Digest))
	}
	return in, nil
}

func readDescriptor(f *os.File) ([]byte, error) {
	if f == nil {
		return nil, errors.New("its descriptor is not open")
	}
	return io.ReadAll(io.NewSectionReader(f, 0, layout.MaxManifest))
}

// readConfig takes from an image's configuration what the store keeps.
func readConfig(raw []byte, wanted layout.Platform) (string, store.Config, error) {
	var doc struct {
		layout.Platform
		Config struct {
			Env        []string
			WorkingDir string
			Entrypoint []string
			Cmd        []string
			User       string
			Labels     map[string]string
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return "", store.Config{}, fmt.Errorf("read configuration: %w", err)
	}
	if !wanted.Runs(doc.Platform) {
		return "", store.Config{}, fmt.Errorf("%w, %s; there is %s", layout.ErrPlatform, wanted, doc.Platform)
	}
	for _, s := range append(append(doc.Config.Env, doc.Config.Entrypoint...), doc.Config.Cmd...) {
		if strings.Contains(s, "\x00") {
			return "", store.Config{}, errors.New("read configuration: a zero byte in the environment or command")
		}
	}
	conf := store.Config(doc.Config)
	if err := conf.Check(); err != nil {
		return "", store.Config{}, err
	}
	return doc.Platform.String(), conf, nil
}

// meta returns what the store keeps of the order.
func (o order) meta() store.Meta {
	r := o.name
	if r.Tag != "" {
		r.Digest = "" // the job's, of an index perhaps; the image has its own
	}
	return store.Meta{Name: r.String(), User: o.user, Created: time.Now().UTC().Truncate(time.Second)}
}
