// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// Scratch returns a new file, for [Unpack], beside a path. It has no name, and is gone
// when it is closed.
func Scratch(beside string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(beside), filepath.Base(beside)+"-")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// Unpack turns an image that is a squashfs into one with a layer, for [Convert],
// with the program sqfs2tar. It fills two files of [Scratch]: the copy and the layer,
// which the result refers to.
//
// The squashfs is copied first, and checked against its digest: it belongs to a
// user who may change it, and what is published must be what the digest says.
func Unpack(ctx context.Context, in Input, copied, unpacked *os.File, sqfs2tar string, limits config.Convert) (Input, error) {
	ctx, cancel := inTime(ctx, limits)
	defer cancel()
	if err := copyChecked(ctx, in, copied); err != nil {
		return Input{}, err
	}
	return unpackTo(ctx, copied, unpacked, sqfs2tar, limits)
}

func copyChecked(ctx context.Context, in Input, to *os.File) error {
	l := &layer{desc: in.Manifest.Layers[0], file: in.Layers[0]}
	sum := sha256.New()
	size, err := io.Copy(to, &rawReader{ctx: ctx, r: io.NewSectionReader(l.file, 0, l.desc.Size+1), sum: sum})
	if err == nil && (digestOf(sum) != l.desc.Digest || size != l.desc.Size) {
		err = fault.WithHint(fmt.Errorf("the squashfs is corrupt: its content has digest %s", digestOf(sum)),
			`the image cache is damaged: remove the image with "brolga rmi" and try again`)
	}
	return explainStore(err, filepath.Dir(to.Name()))
}

// unpackTo writes what is in a squashfs to a file, as a compressed layer.
func unpackTo(ctx context.Context, from, to *os.File, sqfs2tar string, limits config.Convert) (Input, error) {
	plain, packed := sha256.New(), sha256.New()
	zw, err := zstd.NewWriter(io.MultiWriter(to, packed), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return Input{}, err
	}
	limited := &limitedWriter{w: io.MultiWriter(zw, plain), left: int64(limits.Unpacked)}
	err = command.Run(ctx, command.Cmd{
		Path: sqfs2tar,
		// Without the first two the mode of the root directory would be lost.
		Args:   []string{"--root-becomes", ".", "/proc/self/fd/3"},
		Files:  []*os.File{from},
		Stdout: limited,
	})
	err = errors.Join(limited.err, zw.Close(), err)
	if limited.err != nil {
		return Input{}, explainStore(limited.err, filepath.Dir(to.Name())) // the program's end is no news
	}
	if err != nil {
		return Input{}, fmt.Errorf("unpack the squashfs: %w", err)
	}
	return compose(to, digestOf(packed), digestOf(plain))
}

// compose describes a layer as an image.
func compose(layer *os.File, digest, diffID string) (Input, error) {
	st, err := layer.Stat()
	if err != nil {
		return Input{}, err
	}
	config, err := json.Marshal(map[string]any{"rootfs": map[string]any{"diff_ids": []string{diffID}}})
	if err != nil {
		return Input{}, err
	}
	m, err := layout.Compose(
		layout.Descriptor{MediaType: layout.TypeConfig, Digest: layout.Digest(config), Size: int64(len(config))},
		[]layout.Descriptor{{MediaType: layout.TypeLayer + "+zstd", Digest: digest, Size: st.Size()}})
	return Input{Manifest: m, Config: config, Layers: []*os.File{layer}}, err
}

// limitedWriter counts what is written against a limit.
type limitedWriter struct {
	w    io.Writer
	left int64
	err  error
}

func (l *limitedWriter) Write(b []byte) (int, error) {
	if l.err == nil {
		l.err = spend(&l.left, int64(len(b)), "data", "unpacked")
	}
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.w.Write(b)
	l.err = err
	return n, err
}
