// SPDX-License-Identifier: Apache-2.0

package load

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

const (
	gzipMagic = "\x1f\x8b"
	zstdMagic = "\x28\xb5\x2f\xfd"

	maxMembers = 100_000  // of an archive
	maxKept    = 64 << 20 // bytes of JSON documents that are held in memory
	maxLinks   = 40       // that are followed, as Linux has it
)

// archive is a tar file with an image. It is read once for its table and its
// JSON documents, and once for what is wanted of the others; where it is not
// compressed, the first reading skips from name to name.
type archive struct {
	file    *os.File
	members map[string]member
}

// member is what an archive has under a name; of several, the last counts.
type member struct {
	index   int    // place in the archive, from zero
	link    string // name of another member, if it is a link
	content []byte // of a JSON document
}

// errSparse refuses a way to store files that no program uses for images, and
// that makes any size of a few bytes.
var errSparse = fault.WithHint(errors.New("the archive has sparse files"), "make it without tar's option --sparse")

// openArchive reads the table of an archive.
func openArchive(ctx context.Context, f *os.File) (*archive, error) {
	a := &archive{file: f, members: map[string]member{}}
	kept := 0
	err := a.walk(ctx, func(index int, hdr *tar.Header, r io.Reader) error {
		if index == maxMembers {
			return fmt.Errorf("the archive has more than %d files", maxMembers)
		}
		m := member{index: index}
		switch hdr.Typeflag {
		case tar.TypeGNUSparse:
			return errSparse
		case tar.TypeReg:
			if hdr.PAXRecords["GNU.sparse.major"] != "" || hdr.PAXRecords["GNU.sparse.map"] != "" {
				return errSparse
			}
			content, err := readDocument(hdr, r)
			if err != nil {
				return err
			}
			if kept += len(content); kept > maxKept {
				return fmt.Errorf("the JSON documents in the archive have more than %d bytes", maxKept)
			}
			m.content = content
		case tar.TypeSymlink:
			m.link = clean(path.Join(path.Dir(clean(hdr.Name)), hdr.Linkname))
		case tar.TypeLink:
			m.link = clean(hdr.Linkname)
		default:
			return nil
		}
		a.members[clean(hdr.Name)] = m
		return nil
	})
	return a, err
}

// readDocument returns the content of a JSON document, which indexes, manifests
// and configurations are, and nil for other files.
func readDocument(hdr *tar.Header, r io.Reader) ([]byte, error) {
	if hdr.Size == 0 || hdr.Size > layout.MaxManifest {
		return nil, nil
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(r, first); err != nil {
		return nil, err
	}
	if !strings.Contains("{[ \t\r\n", string(first)) {
		return nil, nil
	}
	rest, err := io.ReadAll(r)
	return append(first, rest...), err
}

// clean returns the name of a member without ./ and the like.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// walk reads the archive from its beginning. It ends early, without an error,
// when f returns io.EOF.
func (a *archive) walk(ctx context.Context, f func(index int, hdr *tar.Header, r io.Reader) error) error {
	plain, done, err := decompress(ctx, a.file)
	if err != nil {
		return err
	}
	defer done()
	tr := tar.NewReader(plain)
	for index := 0; ; index++ {
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, tar.ErrHeader) && index == 0 {
			return fault.WithHint(errors.New("the file is not a tar archive"), `the path must be that of an archive that "docker save", "podman save" or skopeo has written`)
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := f(index, hdr, layout.Stoppable(ctx, tr)); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// decompress returns the archive as it is without compression. A file that has
// none can be skipped through.
func decompress(ctx context.Context, f *os.File) (r io.Reader, done func(), err error) {
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	raw := io.NewSectionReader(f, 0, st.Size())
	magic := make([]byte, 6)
	if _, err := raw.ReadAt(magic, 0); err != nil && err != io.EOF {
		return nil, nil, err
	}
	in := bufio.NewReaderSize(layout.Stoppable(ctx, raw), 1<<20)
	switch {
	case bytes.HasPrefix(magic, []byte(gzipMagic)):
		zr, err := gzip.NewReader(in)
		if err != nil {
			return nil, nil, fmt.Errorf("decompress: %w", err)
		}
		return zr, func() { zr.Close() }, nil
	case bytes.HasPrefix(magic, []byte(zstdMagic)):
		zr, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, fmt.Errorf("decompress: %w", err)
		}
		return zr, zr.Close, nil
	case string(magic) == "\xfd7zXZ\x00", bytes.HasPrefix(magic, []byte("BZh")):
		return nil, nil, fault.WithHint(errors.New("the archive is compressed with xz or bzip2"), "decompress it, or compress it with gzip or zstd")
	}
	return raw, func() {}, nil
}

// lookup returns the member that a name leads to.
func (a *archive) lookup(name string) (member, error) {
	at := clean(name)
	for range maxLinks {
		m, ok := a.members[at]
		if !ok {
			return member{}, fmt.Errorf("%s: %w", name, errMissing)
		}
		if m.link == "" {
			return m, nil
		}
		at = m.link
	}
	return member{}, fmt.Errorf("%s: too many links", name)
}

func (a *archive) has(name string) bool {
	_, err := a.lookup(name)
	return err == nil
}

func (a *archive) small(name string) ([]byte, error) {
	m, err := a.lookup(name)
	if err == nil && m.content == nil {
		err = fmt.Errorf("%s is not a JSON document of at most %d bytes", name, layout.MaxManifest)
	}
	return m.content, err
}

func (a *archive) each(ctx context.Context, names []string, take func(string, io.Reader) error) error {
	wanted := map[int][]string{}
	for _, name := range names {
		m, err := a.lookup(name)
		if err != nil {
			return err
		}
		wanted[m.index] = append(wanted[m.index], name)
	}
	return a.walk(ctx, func(index int, _ *tar.Header, r io.Reader) error {
		if len(wanted) == 0 {
			return io.EOF
		}
		names, ok := wanted[index]
		if !ok {
			return nil
		}
		delete(wanted, index)
		return takeAll(names, r, take)
	})
}

// takeAll calls take with one file under all its names. Several names are rare:
// that file is an empty layer.
func takeAll(names []string, r io.Reader, take func(string, io.Reader) error) error {
	if len(names) == 1 {
		return take(names[0], r)
	}
	content, err := readSmall(r, names[0])
	for _, name := range names {
		if err == nil {
			err = take(name, bytes.NewReader(content))
		}
	}
	return err
}
