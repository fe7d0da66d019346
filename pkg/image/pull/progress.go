// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// Progress shows a person how far a pull is: one line that changes, on a
// terminal, and one line for each layer elsewhere. A nil Progress shows nothing.
type Progress struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	total    int64
	got      int64
	blobs    int
	finished int
	drawn    time.Time
	line     bool // the terminal's line is in use
}

// NewProgress returns a Progress that writes to f.
func NewProgress(f *os.File) *Progress {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &Progress{w: f, terminal: err == nil}
}

// begin announces blobs that will be fetched.
func (p *Progress) begin(blobs []layout.Descriptor) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total, p.got, p.finished, p.blobs = 0, 0, 0, len(blobs)
	for _, d := range blobs {
		p.total += d.Size
	}
}

// add says that n more bytes are here, or fewer, if some have to be fetched
// again.
func (p *Progress) add(n int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got += n
	if p.terminal && time.Since(p.drawn) > 100*time.Millisecond {
		p.draw()
	}
}

// done says that a blob is complete.
func (p *Progress) done(d layout.Descriptor) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished++
	if p.terminal {
		p.draw()
	} else {
		fmt.Fprintf(p.w, "brolga: pulled layer %d/%d %.19s (%s)\n", p.finished, p.blobs, d.Digest, size(d.Size))
	}
}

// say shows a message.
func (p *Progress) say(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, "brolga: "+format+"\n", args...)
}

// finish ends the line on the terminal.
func (p *Progress) finish() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *Progress) draw() {
	const width = 24
	full := width
	if p.total > 0 {
		full = min(int(max(p.got, 0)*width/p.total), width)
	}
	bar := fmt.Sprintf("%-*s", width, "========================"[:full])
	fmt.Fprintf(p.w, "\r\x1b[Kbrolga: [%s] %s of %s, layer %d/%d", bar, size(p.got), size(p.total), min(p.finished+1, p.blobs), p.blobs)
	p.drawn, p.line = time.Now(), true
}

func (p *Progress) clear() {
	if p.line {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.line = false
	}
}

// size returns n bytes as people read it.
func size(n int64) string {
	for _, u := range []struct {
		bytes int64
		name  string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= 10*u.bytes {
			return fmt.Sprintf("%d %s", n/u.bytes, u.name)
		}
		if n >= u.bytes {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
