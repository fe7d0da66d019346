// SPDX-License-Identifier: Apache-2.0

// Package squash turns the layers of an image into one squashfs.
//
// Layers are applied as the OCI image specification says (layer.md): whiteouts
// and opaque directories hide what lower layers have, hard links are files of
// their own once made, the last description of a file counts. Owners, modes and
// times are kept; device files, and extended attributes other than user.*, are
// not. Names cannot lead out of the image. docs/images.md says it for users; a
// test compares it with umoci.
//
// Layers are read once, the uppermost first, so that what they hide is known when
// a lower one is read: the content of files goes into tar2sqfs as it is
// decompressed. There is no unpacked copy on the disk, and no file is ever held in
// memory. When all layers have been read, their digests have been checked, those
// in the manifest and those in the configuration, and the tree of the image is
// built. The rest of it is written then: directories, links, empty files. For odd
// images the tree may have other files than were written, for example one that a
// layer hides but links to; then all is begun again, with a second reading.
//
// The same image gives the same bytes.
//
// The package is for a process without privilege: its input is untrusted, and
// the parsers of archives and of squashfs are many lines of code.
package squash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// Input is an image: its manifest, its configuration and its layers, the lowest
// first, as the manifest lists them.
type Input struct {
	Manifest layout.Manifest
	Config   []byte
	Layers   []*os.File
	// OneOwner gives all files to root, for a container in which there is nobody
	// else.
	OneOwner bool
}

// These were measured: docs/decisions/0002-tar2sqfs.md.
const (
	zstdLevel = "3"
	blockSize = "131072"
)

// maxJobs is how many threads compress. More are idle, because decompression
// takes longer than a few of them, and each takes memory.
const maxJobs = 8

// maxParallel is how many layers are decompressed at once; each can take
// maxWindow of memory.
const maxParallel = 2

// Convert writes the image to the file out with the program tar2sqfs, and returns the
// content of the files that every container start reads. A file that is there is
// overwritten, because a sandbox may allow that and no new file. After an error there
// is none, where the process may remove it. The error names the layer that is to
// blame, if one is.
//
// Memory of tar2sqfs and the size of out are limited by the resource limits of this
// process, which are the caller's to set.
func Convert(ctx context.Context, in Input, out, tar2sqfs string, limits config.Convert) (Kept, error) {
	conf, err := readConfig(in)
	if err != nil {
		return nil, err
	}
	ctx, cancel := inTime(ctx, limits)
	defer cancel()
	layers := in.layers(conf)
	w := newWriter(out, tar2sqfs, conf.time())
	w.oneOwner, w.overwrites = in.OneOwner, true
	var t *tree
	err = w.run(ctx, func(ctx context.Context) (err error) {
		if t, err = w.readOnce(ctx, layers, limits); err != nil {
			return err
		}
		return w.rest(t)
	})
	if errors.Is(err, errOdd) {
		err = w.run(ctx, func(ctx context.Context) error {
			if err := w.readAgain(ctx, layers, t); err != nil {
				return err
			}
			return w.rest(t)
		})
	}
	return w.keep, err
}

// inTime returns a context that ends when the site's patience does.
func inTime(ctx context.Context, limits config.Convert) (context.Context, context.CancelFunc) {
	timeout := time.Duration(limits.Timeout)
	return context.WithTimeoutCause(ctx, timeout, fault.WithHint(fmt.Errorf("not done after %s", timeout), raise("timeout")))
}

// layers returns the layers as conf describes them.
func (in Input) layers(conf imageConfig) []*layer {
	layers := make([]*layer, len(in.Layers))
	for i, f := range in.Layers {
		layers[i] = &layer{desc: in.Manifest.Layers[i], diffID: conf.RootFS.DiffIDs[i], file: f}
	}
	return layers
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
