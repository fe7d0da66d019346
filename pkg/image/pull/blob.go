// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/lease"
)

var (
	errCorrupt = errors.New("corrupt")
	errRestart = errors.New("the registry does not resume")
)

// enough is how much of a blob is worth another try.
const enough = 64 << 10

// blob fetches one blob. It is written to a partial file that a later call, of
// this process or another, continues; a lease keeps others away meanwhile.
func (p *puller) blob(ctx context.Context, d layout.Descriptor) error {
	path, err := p.layout.BlobPath(d.Digest)
	if err != nil {
		return err
	}
	held, err := lease.Acquire(ctx, p.layout.LeasePath("blob-"+filepath.Base(path)), lease.Options{
		Done: func() bool { return p.layout.Has(d) },
	})
	if errors.Is(err, lease.ErrDone) { // someone else was faster
		p.progress.resume(d, d.Size)
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	ctx = held.Context()
	partial := filepath.Join(filepath.Dir(path), ".partial-"+filepath.Base(path))
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	dl := &download{progress: p.progress, d: d, f: f}
	if err := dl.resume(); err != nil {
		return err
	}
	_, err = p.somewhere(ctx, p.places, func(reg *registry) error { return dl.run(ctx, reg) })
	if err != nil {
		if errors.Is(err, errCorrupt) {
			os.Remove(partial)
		}
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(partial, path)
}

// dropDamaged removes a blob from the cache if its content is not what its digest
// says.
func (p *puller) dropDamaged(ctx context.Context, d layout.Descriptor) error {
	f, err := p.layout.Blob(d.Digest)
	if errors.Is(err, layout.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	for err == nil {
		_, err = io.CopyN(sum, f, 16<<20)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if "sha256:"+hex.EncodeToString(sum.Sum(nil)) == d.Digest {
		return nil
	}
	p.o.Progress.say("fetching %.19s again: it is damaged in the cache", d.Digest)
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	return nil
}

// download is one blob on its way into a file.
type download struct {
	progress *Progress
	reg      *registry // where it comes from now
	d        layout.Descriptor
	f        *os.File
	hash     hash.Hash
	have     int64 // bytes that are in the file and in the hash
}

// run fetches from a registry until the file is the blob. Trouble with the
// network costs a try only where it kept us from getting any further. Wrong
// content is fetched from scratch once.
func (dl *download) run(ctx context.Context, reg *registry) error {
	dl.reg = reg
	select {
	case reg.slots <- struct{}{}:
		defer func() { <-reg.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for try, corrupt := 1, 0; ; {
		before := dl.have
		err := dl.fetch(ctx)
		switch {
		case err == nil:
			if err = dl.verify(); err == nil {
				return nil
			}
			fallthrough
		case errors.Is(err, errCorrupt):
			if err := dl.reset(); err != nil {
				return err
			}
			if corrupt++; corrupt == 2 {
				return err
			}
			continue
		case errors.Is(err, errRestart):
			if err := dl.reset(); err != nil {
				return err
			}
		case ctx.Err() != nil || !isPassing(err):
			return fmt.Errorf("blob %s: %w", dl.d.Digest, err)
		}
		if dl.have >= before+enough {
			try = 1
		}
		if try == maxTries {
			return fmt.Errorf("blob %s: %w", dl.d.Digest, err)
		}
		if err := pause(ctx, jitter(reg.pause, try)); err != nil {
			return err
		}
		try++
	}
}

// resume takes over what an earlier download left in the file.
func (dl *download) resume() error {
	dl.hash = sha256.New()
	n, err := io.Copy(dl.hash, dl.f)
	if err != nil {
		return err
	}
	dl.have = n
	dl.progress.resume(dl.d, n)
	if n > dl.d.Size {
		return dl.reset()
	}
	return nil
}

// reset starts over.
func (dl *download) reset() error {
	dl.progress.add(dl.d, -dl.have)
	dl.hash, dl.have = sha256.New(), 0
	if err := dl.f.Truncate(0); err != nil {
		return err
	}
	_, err := dl.f.Seek(0, io.SeekStart)
	return err
}

// fetch gets what is missing, in one request.
func (dl *download) fetch(ctx context.Context) error {
	if dl.have == dl.d.Size {
		return nil
	}
	header := http.Header{}
	if dl.have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", dl.have, dl.d.Size-1))
	}
	resp, err := dl.reg.do(ctx, http.MethodGet, "blobs/"+dl.d.Digest, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
		var start int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &start); err != nil || start != dl.have {
			return errRestart
		}
	case http.StatusOK: // all of it
		if err := dl.reset(); err != nil {
			return err
		}
	default:
		return errRestart
	}
	_, err = io.Copy(dl, io.LimitReader(resp.Body, dl.d.Size-dl.have+1))
	switch {
	case err != nil:
		return err
	case dl.have > dl.d.Size:
		return fmt.Errorf("blob %s is %w: the registry sent more than its %d bytes", dl.d.Digest, errCorrupt, dl.d.Size)
	case dl.have < dl.d.Size:
		return io.ErrUnexpectedEOF
	}
	return nil
}

// Write adds to the file and the hash.
func (dl *download) Write(b []byte) (int, error) {
	n, err := dl.f.Write(b)
	dl.hash.Write(b[:n])
	dl.have += int64(n)
	dl.progress.add(dl.d, int64(n))
	return n, err
}

func (dl *download) verify() error {
	if got := "sha256:" + hex.EncodeToString(dl.hash.Sum(nil)); got != dl.d.Digest {
		return fmt.Errorf("blob %s is %w: the registry sent content with digest %s", dl.d.Digest, errCorrupt, got)
	}
	return nil
}
