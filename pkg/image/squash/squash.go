// SPDX-License-Identifier: Apache-2.0

// Package squash turns the layers of an image into one squashfs.
//
// Layers are applied as the OCI image specification says (layer.md): whiteouts
// and opaque directories hide what lower layers have, hard links are files of
// their own once made, the last description of a file counts. Owners, modes and
// times are kept; device files, and extended attributes other than user.*, are
// not. Names cannot lead out of the image.
//
// Each layer is read twice. The first reading checks it against the digests in
// the manifest and in the configuration and builds the tree of the image in
// memory, all layers at once. The second one streams the files that are left,
// as a single tar file, into tar2sqfs. So there is no unpacked copy on the disk,
// and no file is ever held in memory. The second reading checks again, because
// the layers belong to a user who could change them in between.
//
// The same image gives the same bytes.
//
// The package is for a process without privilege: its input is untrusted, and
// the parsers of archives and of squashfs are many lines of code.
package squash

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// Input is an image: its manifest, its configuration and its layers, the lowest
// first, as the manifest lists them.
type Input struct {
	Manifest layout.Manifest
	Config   []byte
	Layers   []*os.File
}

// Limits keep an image from using up a node.
type Limits struct {
	Unpacked int64 // bytes in all layers, uncompressed
	Entries  int64 // files in all layers
	Names    int64 // bytes of names and attributes in all layers
}

// DefaultLimits are far above the largest images in use.
var DefaultLimits = Limits{Unpacked: 512 << 30, Entries: 5_000_000, Names: 512 << 20}

// These were measured: docs/decisions/0002-tar2sqfs.md.
const (
	zstdLevel = "3"
	blockSize = "131072"
)

// maxParallel is how many layers are decompressed at once; each can take 128
// MiB of memory.
const maxParallel = 8

// Convert writes the image to a new file, out, with the program tar2sqfs, and
// returns the content of the files that every container start reads. What is
// there after an error is not an image. The error names the layer that is to
// blame, if one is.
func Convert(ctx context.Context, in Input, out, tar2sqfs string, limits Limits) (Kept, error) {
	conf, err := readConfig(in)
	if err != nil {
		return nil, err
	}
	layers := make([]*layer, len(in.Layers))
	for i, f := range in.Layers {
		layers[i] = &layer{desc: in.Manifest.Layers[i], diffID: conf.RootFS.DiffIDs[i], file: f}
	}
	t, err := build(ctx, layers, limits)
	if err != nil {
		return nil, err
	}
	keep := Kept{"etc/passwd": nil, "etc/group": nil}
	return keep, write(ctx, t, layers, out, tar2sqfs, conf.time(), keep)
}

// imageConfig is the part of an image's configuration that says what its layers
// are.
type imageConfig struct {
	Created string `json:"created"`
	RootFS  struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// readConfig checks the configuration.
func readConfig(in Input) (imageConfig, error) {
	var conf imageConfig
	want := in.Manifest.Config.Digest
	if got := layout.Digest(in.Config); got != want {
		return conf, fmt.Errorf("configuration %s is corrupt: its content has digest %s", want, got)
	}
	if err := json.Unmarshal(in.Config, &conf); err != nil {
		return conf, fmt.Errorf("read configuration %s: %w", want, err)
	}
	if n := len(in.Manifest.Layers); len(conf.RootFS.DiffIDs) != n || len(in.Layers) != n {
		return conf, fmt.Errorf("the manifest has %d layers, the configuration %d", n, len(conf.RootFS.DiffIDs))
	}
	return conf, nil
}

// time returns when the image was made, in seconds that a squashfs can hold.
func (c imageConfig) time() int64 {
	t, err := time.Parse(time.RFC3339, c.Created)
	if err != nil { // it is only for show
		return 0
	}
	return min(max(t.Unix(), 0), maxTime)
}

// build reads all layers at once and applies them one by one.
func build(ctx context.Context, layers []*layer, limits Limits) (*tree, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	left := &budget{}
	left.bytes.Store(limits.Unpacked)
	left.entries.Store(limits.Entries)
	left.names.Store(limits.Names)
	entries := make([][]entry, len(layers))
	slots := make(chan struct{}, min(runtime.GOMAXPROCS(0), maxParallel))
	var wg sync.WaitGroup
	for i, l := range layers {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var err error
			if entries[i], err = l.scan(ctx, left); err != nil {
				cancel(fmt.Errorf("layer %s: %w", l.desc.Digest, err)) // the first one counts
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	t := newTree()
	for i, l := range layers {
		if err := t.apply(i, entries[i]); err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.desc.Digest, err)
		}
		entries[i] = nil
	}
	return t, nil
}

// write runs tar2sqfs and feeds it.
func write(ctx context.Context, t *tree, layers []*layer, out, tar2sqfs string, created int64, keep Kept) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	_, _ = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 1<<20) // only faster
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fed := make(chan error, 1)
	go func() {
		err := feed(ctx, w, t, layers, keep)
		if err != nil {
			cancel(err) // kills tar2sqfs before it sees the end of its input
		}
		fed <- errors.Join(err, w.Close())
	}()
	err = command.Run(ctx, command.Cmd{
		Path: tar2sqfs,
		Args: []string{
			"--compressor", "zstd", "--comp-extra", "level=" + zstdLevel, "--block-size", blockSize,
			"--num-jobs", strconv.Itoa(runtime.GOMAXPROCS(0)), "--no-skip", "--quiet", out,
		},
		Env:   []string{"SOURCE_DATE_EPOCH=" + strconv.FormatInt(created, 10)},
		Stdin: r,
	})
	r.Close() // lets feed fail, if tar2sqfs did not read it all
	feedErr := <-fed
	if feedErr != nil && (err == nil || !errors.Is(feedErr, unix.EPIPE)) {
		return feedErr
	}
	return explain(err, filepath.Dir(out))
}

// explain turns a failure of tar2sqfs, which does not say why it could not
// write, into what the reader needs to know.
func explain(err error, dir string) error {
	var ce *command.Error
	if !errors.As(err, &ce) || !strings.Contains(ce.Stderr, "I/O error") {
		return err
	}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) < 16<<20 {
		return fault.WithHint(fmt.Errorf("no space left in the store %s", dir),
			`an administrator can make space with "brolga rmi --store"`)
	}
	return fmt.Errorf("write to the store %s: %w", dir, err)
}

// feed writes the image as one tar file: the root, directories and everything
// without content sorted by name, then files in the order in which the layers have
// them, then further names of files.
func feed(ctx context.Context, w *os.File, t *tree, layers []*layer, keep Kept) error {
	buf := bufio.NewWriterSize(w, 1<<20)
	tw := tar.NewWriter(buf)
	wanted := make([]map[int]*node, len(layers))
	for i := range wanted {
		wanted[i] = map[int]*node{}
	}
	type link struct {
		name string
		node *node
	}
	var links []link
	if err := tw.WriteHeader(t.root.header(".")); err != nil {
		return fmt.Errorf("the root: %w", err)
	}
	for name, n := range t.walk() {
		switch {
		case len(name) > maxPath:
			return fmt.Errorf("%.40q...: the name is longer than %d bytes", name, maxPath)
		case n.path != "":
			links = append(links, link{name, n})
			continue
		}
		n.path = name
		if n.size > 0 {
			wanted[n.layer][n.index] = n
			continue
		}
		if err := tw.WriteHeader(n.header(name)); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	for i, l := range layers {
		if err := l.copyTo(ctx, tw, wanted[i], keep); err != nil {
			return fmt.Errorf("layer %s: %w", l.desc.Digest, err)
		}
	}
	for _, l := range links {
		hdr := l.node.header(l.name)
		hdr.Typeflag, hdr.Linkname, hdr.Size, hdr.PAXRecords = tar.TypeLink, l.node.path, 0, nil
		if err := tw.WriteHeader(hdr); err != nil {
			return fmt.Errorf("%q: %w", l.name, err)
		}
	}
	return errors.Join(tw.Close(), buf.Flush())
}

// header returns the tar header of a file under one of its names.
func (n *node) header(name string) *tar.Header {
	if n.isDir() {
		name += "/"
	}
	return &tar.Header{
		Typeflag:   n.kind,
		Name:       name,
		Linkname:   n.target,
		Mode:       int64(n.mode),
		Uid:        int(n.uid),
		Gid:        int(n.gid),
		Size:       n.size,
		ModTime:    time.Unix(int64(n.mtime), 0),
		PAXRecords: n.attrs,
	}
}
