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

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// budget is what is left of the limits.
type budget struct {
	bytes, files, memory int64
}

func newBudget(limits config.Convert) *budget {
	return &budget{bytes: int64(limits.Unpacked), files: limits.Files, memory: int64(limits.Memory) / 2}
}

// spend takes n from what is left. The error names the setting of the site.
func spend(left *int64, n int64, what, setting string) error {
	if *left -= n; *left >= 0 {
		return nil
	}
	return overLimit(what, setting)
}

func overLimit(what, setting string) error {
	return fault.WithHint(fmt.Errorf("the image has more %s than the site allows", what), raise(setting))
}

// ErrTooLarge means that a file exceeded the process's limit for the size of files.
var ErrTooLarge = errors.New("the image has more data than the site allows")

func tooLarge() error { return fault.WithHint(ErrTooLarge, raise("squashfs")) }

func raise(setting string) string {
	return fmt.Sprintf("an administrator can raise convert.%s in the site's configuration", setting)
}

// layer is one compressed tar file. Each reading of it begins anew, and checks
// the digest anew, because its file belongs to someone who may change it at any
// time.
type layer struct {
	desc   layout.Descriptor
	diffID string // digest of the tar file
	file   io.ReaderAt
}

// scan reads the whole layer from s, checks it and returns its entries. It calls
// content for each file that is not empty; what that leaves is skipped.
func (l *layer) scan(s *stream, left *budget, content func(*entry, io.Reader) error) ([]entry, error) {
	sum := sha256.New()
	plain := io.TeeReader(&limited{s, left}, sum)
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
			err = left.charge(hdr, e)
		}
		if err == nil && e.size > 0 {
			err = content(&e, tr)
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

// entryMemory is what an entry takes beside its names and attributes: resident
// were 560 bytes for each of a million with names of 60.
const entryMemory = 500

// charge counts an entry. A sparse file is counted with its holes, because it
// is read with them.
func (b *budget) charge(hdr *tar.Header, e entry) error {
	memory := entryMemory + len(e.name) + len(e.link) + len(e.target)
	for k, v := range e.attrs {
		memory += len(k) + len(v)
	}
	if err := spend(&b.files, 1, "files", "files"); err != nil {
		return err
	}
	if err := spend(&b.memory, int64(memory), "names and attributes", "memory"); err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeGNUSparse || hdr.PAXRecords["GNU.sparse.major"] != "" || hdr.PAXRecords["GNU.sparse.map"] != "" {
		return spend(&b.bytes, hdr.Size, "data", "unpacked")
	}
	return nil
}

var errChanged = errors.New("the layer was changed while it was read")

// pick calls content for the wanted files of the layer, in the order of the
// layer. The keys of wanted are places in the tar file.
func (l *layer) pick(ctx context.Context, wanted map[int]*node, content func(*node, io.Reader) error) error {
	if len(wanted) == 0 {
		return nil
	}
	s := l.read(ctx)
	defer s.Close()
	tr := tar.NewReader(s)
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
		if err := content(n, tr); err != nil {
			return err
		}
		todo--
	}
	return s.verify()
}

// stream is a layer that is being read: what comes out is the tar file. It is
// decompressed in the background, so that this does not wait for who takes the
// result.
type stream struct {
	desc layout.Descriptor
	raw  rawReader // the compressed layer

	chunks chan chunk
	empty  chan []byte
	made   int // buffers
	stop   chan struct{}
	done   chan struct{}
	now    chunk
	rest   []byte
}

type chunk struct {
	data []byte
	err  error
}

// A layer is decompressed ahead by so much.
const (
	chunkSize  = 256 << 10
	chunkCount = 64
)

// read begins to read the layer.
func (l *layer) read(ctx context.Context) *stream {
	s := &stream{
		desc:   l.desc,
		raw:    rawReader{ctx: ctx, r: io.NewSectionReader(l.file, 0, l.desc.Size+1), sum: sha256.New()},
		chunks: make(chan chunk, chunkCount+1), // one more for an error
		empty:  make(chan []byte, chunkCount),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		if err := s.fill(); err != nil {
			s.chunks <- chunk{err: err}
		}
	}()
	return s
}

// fill decompresses until the end, or until the stream is closed.
func (s *stream) fill() error {
	r, err := decompress(&s.raw)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		b := s.buffer()
		if b == nil {
			return nil
		}
		n, err := io.ReadFull(r, b[:chunkSize])
		s.chunks <- chunk{data: b[:n]} // there is room for all of them
		if err == io.ErrUnexpectedEOF && n > 0 {
			continue // the next read tells what it is
		}
		if err != nil {
			return err
		}
	}
}

// buffer waits for one that is free. It returns nil when the stream is closed.
func (s *stream) buffer() []byte {
	select {
	case b := <-s.empty:
		return b
	case <-s.stop:
		return nil
	default:
	}
	if s.made < chunkCount {
		s.made++
		return make([]byte, chunkSize)
	}
	select {
	case b := <-s.empty:
		return b
	case <-s.stop:
		return nil
	}
}

// Read reads the tar file.
func (s *stream) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.now.err != nil {
			return 0, s.now.err
		}
		if s.now.data != nil {
			s.empty <- s.now.data
		}
		s.now = <-s.chunks
		s.rest = s.now.data
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close waits until nothing is read any more. It may be called again. What was
// decompressed ahead is forgotten.
func (s *stream) Close() {
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	<-s.done
}

// verify reads what is left of the compressed layer and checks size and digest
// of all of it. The stream cannot be read after that.
func (s *stream) verify() error {
	s.Close()
	if _, err := io.Copy(io.Discard, &s.raw); err != nil {
		return err
	}
	if s.raw.n != s.desc.Size {
		return fmt.Errorf("the layer has not the size that its manifest says, %d", s.desc.Size)
	}
	if got := digestOf(s.raw.sum); got != s.desc.Digest {
		return fault.WithHint(fmt.Errorf("the layer is corrupt: its content has digest %s", got),
			`the image cache is damaged: remove the image with "brolga rmi" and try again`)
	}
	return nil
}

// decompress returns what raw holds: gzip, zstd, or the tar file itself.
func decompress(raw io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(raw, 1<<20)
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
		return zr, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), isSkippable(magic):
		zr, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
		return zr.IOReadCloser(), nil
	}
	return io.NopCloser(in), nil
}

// maxWindow is the memory in bytes that decompressing a zstd layer may take;
// "zstd --long" asks for as much.
const maxWindow = 128 << 20

// isSkippable recognises the frame that zstd:chunked files may begin with.
func isSkippable(magic []byte) bool {
	return len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})
}

// rawReader reads and hashes, and stops when the context ends.
type rawReader struct {
	ctx context.Context
	r   io.Reader
	sum hash.Hash
	n   int64
}

func (r *rawReader) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.r.Read(b)
	r.sum.Write(b[:n])
	r.n += int64(n)
	return n, err
}

// limited counts what is read against a limit.
type limited struct {
	r    io.Reader
	left *budget
}

func (l *limited) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if over := spend(&l.left.bytes, int64(n), "data", "unpacked"); over != nil {
		return 0, over
	}
	return n, err
}

func digestOf(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }
