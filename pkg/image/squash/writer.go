// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
)

// writer writes a squashfs with tar2sqfs.
type writer struct {
	tar2sqfs string
	out      string
	created  int64 // seconds
	oneOwner bool
	// overwrites says that there may be a file.
	overwrites bool
	keep       Kept
	files      []*os.File        // that tar2sqfs gets, from descriptor 3 on
	explain    func(error) error // says what a failure of tar2sqfs means

	tar *tar.Writer // into tar2sqfs
	buf []byte
}

func newWriter(out, tar2sqfs string, created int64) *writer {
	return &writer{
		tar2sqfs: tar2sqfs,
		out:      out,
		created:  created,
		keep:     Kept{"etc/passwd": nil, "etc/group": nil},
		explain:  func(err error) error { return explainStore(err, filepath.Dir(out)) },
		buf:      make([]byte, chunkSize),
	}
}

// errOdd means that what has been written is not the image, and that the tree
// says what is.
var errOdd = errors.New("the image is odd")

// run starts tar2sqfs and has feed write the image to w.tar. After an error there
// is no file.
func (w *writer) run(ctx context.Context, feed func(context.Context) error) error {
	err := w.pipe(ctx, feed)
	if err != nil {
		os.Remove(w.out)
	}
	return err
}

func (w *writer) pipe(ctx context.Context, feed func(context.Context) error) error {
	in, pipe, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	_, _ = unix.FcntlInt(pipe.Fd(), unix.F_SETPIPE_SZ, 1<<20) // only faster
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fed := make(chan error, 1)
	go func() {
		buf := bufio.NewWriterSize(pipe, 1<<20)
		w.tar = tar.NewWriter(buf)
		err := feed(ctx)
		if err == nil {
			err = errors.Join(w.tar.Close(), buf.Flush())
		}
		if err != nil {
			cancel(err) // kills tar2sqfs before it sees the end of its input
		}
		fed <- errors.Join(err, pipe.Close())
	}()
	err = command.Run(ctx, command.Cmd{
		Path:  w.tar2sqfs,
		Args:  append(w.options(), w.out),
		Env:   []string{"SOURCE_DATE_EPOCH=" + strconv.FormatInt(w.created, 10)},
		Stdin: in,
		Files: w.files,
	})
	in.Close() // lets feed fail, if tar2sqfs did not read it all
	feedErr := <-fed
	if feedErr != nil && (err == nil || !errors.Is(feedErr, unix.EPIPE)) {
		return feedErr
	}
	return w.explain(err)
}

// options are those of tar2sqfs.
func (w *writer) options() []string {
	options := []string{
		"--compressor", "zstd", "--comp-extra", "level=" + zstdLevel, "--block-size", blockSize,
		"--num-jobs", strconv.Itoa(min(runtime.GOMAXPROCS(0), maxJobs)), "--no-skip", "--quiet",
	}
	if w.overwrites {
		options = append(options, "--force")
	}
	return options
}

// explain turns a failure of tar2sqfs into what the reader needs to know. It does
// not say why it could not write: for that unwritten is asked.
func explain(err error, unwritten func(error) error) error {
	var ce *command.Error
	switch {
	case errors.Is(err, unix.EFBIG): // of this process
		return tooLarge()
	case !errors.As(err, &ce):
		return err
	case strings.Contains(ce.State, unix.SIGXFSZ.String()):
		return tooLarge()
	case strings.Contains(ce.Stderr, "out of memory"):
		return overLimit("names and attributes", "memory")
	case !strings.Contains(ce.Stderr, "I/O error"):
		return err
	}
	return unwritten(err)
}

// isFull tells whether a failed write on a file system is for want of room.
func isFull(st unix.Statfs_t) bool { return st.Bavail*uint64(st.Bsize) < 16<<20 }

// explainStore is explain for what is written to a directory of the store.
func explainStore(err error, dir string) error {
	return explain(err, func(err error) error {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && isFull(st) {
			return fault.WithHint(fmt.Errorf("no space left in the store %s", dir),
				`an administrator can make space with "brolga gc --store --max-size SIZE"`)
		}
		return fmt.Errorf("write to the store %s: %w", dir, err)
	})
}

// readOnce reads all layers, the uppermost first, writes the content of files and
// returns the tree of the image. If files of the tree are missing in what was
// written, or others are there, it also returns errOdd.
func (w *writer) readOnce(ctx context.Context, layers []*layer, limits config.Convert) (*tree, error) {
	left := newBudget(limits)
	streams := make([]*stream, len(layers))
	defer func() {
		for _, s := range streams {
			if s != nil {
				s.Close()
			}
		}
	}()
	next, parallel := len(layers), min(runtime.GOMAXPROCS(0), maxParallel)
	entries := make([][]entry, len(layers))
	hidden, sent, odd := cover{}, 0, false
	for i, l := range slices.Backward(layers) {
		for next > max(i-parallel+1, 0) {
			next--
			streams[next] = layers[next].read(ctx)
		}
		written := cover{}
		var err error
		entries[i], err = l.scan(streams[i], left, func(e *entry, r io.Reader) error {
			if odd || hidden.hides(e.name) {
				return nil
			}
			if odd = written.hides(e.name); odd { // tar2sqfs would refuse it
				return nil
			}
			e.sent = true
			sent++
			written.add(*e)
			return w.content(&e.file, e.name, r)
		})
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.desc.Digest, err)
		}
		if i > 0 {
			for _, e := range entries[i] {
				hidden.add(e)
			}
		}
	}
	t, err := merge(layers, entries)
	if err == nil && (odd || !t.has(sent)) {
		err = errOdd
	}
	return t, err
}

// merge builds the tree that the layers add up to. It forgets the entries.
func merge(layers []*layer, entries [][]entry) (*tree, error) {
	t := newTree()
	for i, l := range layers {
		if err := t.apply(i, entries[i]); err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.desc.Digest, err)
		}
		entries[i] = nil
	}
	return t, nil
}

// readAgain reads the layers that have files of the tree and writes the content
// of those.
func (w *writer) readAgain(ctx context.Context, layers []*layer, t *tree) error {
	wanted := make([]map[int]*node, len(layers))
	for i := range wanted {
		wanted[i] = map[int]*node{}
	}
	for _, n := range t.walk() {
		n.path = ""
	}
	for name := range w.keep {
		w.keep[name] = nil
	}
	for name, n := range t.walk() {
		if n.size > 0 && n.path == "" {
			n.path = name
			wanted[n.layer][n.index] = n
		}
	}
	for i, l := range layers {
		err := l.pick(ctx, wanted[i], func(n *node, r io.Reader) error { return w.content(&n.file, n.path, r) })
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.desc.Digest, err)
		}
	}
	return nil
}

// content writes a file that has content.
func (w *writer) content(f *file, name string, r io.Reader) error {
	if err := w.tar.WriteHeader(w.header(f, name)); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	return w.keep.copy(w.tar, r, name, f.size, w.buf)
}

// rest writes what has no content: directories, empty files, and further names of
// files, sorted by name.
func (w *writer) rest(t *tree) error {
	if err := w.tar.WriteHeader(w.header(&t.root.file, ".")); err != nil {
		return fmt.Errorf("the root: %w", err)
	}
	for name, n := range t.walk() {
		if len(name) > maxPath {
			return fmt.Errorf("%.40q...: the name is longer than %d bytes", name, maxPath)
		}
		hdr := w.header(&n.file, name)
		switch n.path {
		case name: // has been written
			continue
		case "":
			n.path = name
		default:
			hdr.Typeflag, hdr.Linkname, hdr.Size, hdr.PAXRecords = tar.TypeLink, n.path, 0, nil
		}
		if err := w.tar.WriteHeader(hdr); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

// header returns the tar header of a file under one of its names.
func (w *writer) header(f *file, name string) *tar.Header {
	uid, gid := f.uid, f.gid
	if w.oneOwner {
		uid, gid = 0, 0
	}
	if f.isDir() {
		name += "/"
	}
	return &tar.Header{
		Typeflag:   f.kind,
		Name:       name,
		Linkname:   f.target,
		Mode:       int64(f.mode),
		Uid:        int(uid),
		Gid:        int(gid),
		Size:       f.size,
		ModTime:    time.Unix(int64(f.mtime), 0),
		PAXRecords: f.attrs,
	}
}
