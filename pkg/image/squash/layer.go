// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// budget is what all layers of an image together may use.
type budget struct{ bytes, entries, names atomic.Int64 }

// spend takes n from what is left.
func spend(left *atomic.Int64, n int64, what string) error {
	if left.Add(-n) < 0 {
		return fmt.Errorf("the image has more %s than the limit", what)
	}
	return nil
}

// layer is one compressed tar file. Each reading of it begins anew, and checks
// the digest anew, because its file belongs to someone who may change it at any
// time.
type layer struct {
	desc   layout.Descriptor
	diffID string // digest of the tar file
	file   *os.File
}

// scan reads the whole layer, checks it and returns its entries.
func (l *layer) scan(ctx context.Context, left *budget) ([]entry, error) {
	s, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	sum := sha256.New()
	plain := io.TeeReader(&limited{s, &left.bytes}, sum)
	var entries []entry
	tr := tar.NewReader(plain)
	for index := 0; ; index++ {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read tar: %w", err)
		}
		e, err := newEntry(hdr, index)
		if err == errSkip {
			continue
		}
		if err == nil {
			err = charge(left, hdr, e)
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // the tar file may be padded
		return nil, err
	}
	if err := s.verify(); err != nil {
		return nil, err
	}
	if got := digestOf(sum); got != l.diffID {
		return nil, fmt.Errorf("the uncompressed layer has digest %s; the configuration says %s", got, l.diffID)
	}
	return entries, nil
}

// charge counts an entry. A sparse file is counted with its holes, because it
// is read with them.
func charge(left *budget, hdr *tar.Header, e entry) error {
	names := len(e.name) + len(e.link) + len(e.target)
	for k, v := range e.attrs {
		names += len(k) + len(v)
	}
	if err := spend(&left.entries, 1, "files"); err != nil {
		return err
	}
	if err := spend(&left.names, int64(names), "names and attributes"); err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeGNUSparse || hdr.PAXRecords["GNU.sparse.major"] != "" || hdr.PAXRecords["GNU.sparse.map"] != "" {
		return spend(&left.bytes, hdr.Size, "data")
	}
	return nil
}

// copyTo writes the content of the wanted files of the layer to w, in the order
// of the layer. The keys of wanted are places in the tar file.
//
// Files that keep names are also copied to it.
func (l *layer) copyTo(ctx context.Context, w *tar.Writer, wanted map[int]*node, keep Kept) error {
	if len(wanted) == 0 {
		return nil
	}
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	ahead := readAhead(s)
	defer ahead.Close()
	tr := tar.NewReader(ahead)
	for index, todo := 0, len(wanted); todo > 0; index++ {
		hdr, err := tr.Next()
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		n := wanted[index]
		if n == nil {
			continue
		}
		if hdr.Size != n.size {
			return errChanged
		}
		if err := w.WriteHeader(n.header(n.path)); err != nil {
			return err
		}
		if err := keep.copy(w, tr, n); err != nil {
			return err
		}
		todo--
	}
	ahead.Close()
	return s.verify()
}

var errChanged = errors.New("the layer was changed while it was read")

// stream is a layer that is being read: what comes out is the tar file.
type stream struct {
	io.Reader
	desc  layout.Descriptor
	raw   io.Reader // the compressed layer; reading it adds to sum
	sum   hash.Hash
	size  *int64
	close func()
}

func (l *layer) open(ctx context.Context) (*stream, error) {
	s := &stream{desc: l.desc, sum: sha256.New(), size: new(int64), close: func() {}}
	s.raw = &rawReader{ctx: ctx, r: io.NewSectionReader(l.file, 0, l.desc.Size+1), sum: s.sum, n: s.size}
	in := bufio.NewReaderSize(s.raw, 1<<20)
	magic, err := in.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		zr, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		s.Reader = zr
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), isSkippable(magic):
		zr, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		s.Reader, s.close = zr, zr.Close
	default:
		s.Reader = in
	}
	return s, nil
}

// isSkippable recognises the frame that zstd:chunked files may begin with.
func isSkippable(magic []byte) bool {
	return len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})
}

// verify reads what is left of the compressed layer and checks size and digest
// of all of it. The stream cannot be read after that.
func (s *stream) verify() error {
	s.Close()
	if _, err := io.Copy(io.Discard, s.raw); err != nil {
		return err
	}
	if *s.size != s.desc.Size {
		return fmt.Errorf("the layer has not the size that its manifest says, %d", s.desc.Size)
	}
	if got := digestOf(s.sum); got != s.desc.Digest {
		return fault.WithHint(fmt.Errorf("the layer is corrupt: its content has digest %s", got),
			`the image cache is damaged: remove the image with "brolga rmi" and try again`)
	}
	return nil
}

// Close stops reading. It may be called again.
func (s *stream) Close() {
	s.close()
	s.close = func() {}
}

// rawReader reads and hashes, and stops when the context ends.
type rawReader struct {
	ctx context.Context
	r   io.Reader
	sum hash.Hash
	n   *int64
}

func (r *rawReader) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.r.Read(b)
	r.sum.Write(b[:n])
	*r.n += int64(n)
	return n, err
}

// limited counts what is read against a limit.
type limited struct {
	r    io.Reader
	left *atomic.Int64
}

func (l *limited) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if over := spend(l.left, int64(n), "data"); over != nil {
		return 0, over
	}
	return n, err
}

func digestOf(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// ahead reads in the background, so that decompression does not wait for who
// takes the result.
type ahead struct {
	chunks chan chunk
	empty  chan []byte
	stop   chan struct{}
	done   chan struct{}
	now    chunk
	rest   []byte
}

type chunk struct {
	data []byte
	err  error
}

func readAhead(r io.Reader) *ahead {
	const count, size = 8, 256 << 10
	a := &ahead{
		chunks: make(chan chunk, count),
		empty:  make(chan []byte, count),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	for range count {
		a.empty <- make([]byte, size)
	}
	go a.fill(r)
	return a
}

func (a *ahead) fill(r io.Reader) {
	defer close(a.done)
	for {
		var b []byte
		select {
		case b = <-a.empty:
		case <-a.stop:
			return
		}
		n, err := io.ReadFull(r, b[:cap(b)])
		if err == io.ErrUnexpectedEOF && n > 0 {
			err = nil // the next read tells what it is
		}
		a.chunks <- chunk{b[:n], err} // there is room for all buffers
		if err != nil {
			return
		}
	}
}

func (a *ahead) Read(b []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.data != nil {
			a.empty <- a.now.data
		}
		a.now = <-a.chunks
		a.rest = a.now.data
	}
	n := copy(b, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close waits until nothing is read any more. It may be called again.
func (a *ahead) Close() {
	select {
	case <-a.stop:
	default:
		close(a.stop)
	}
	<-a.done
}
