// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// Styles are the ways to show progress, for the help of commands.
const Styles = "auto, bar, plain, json or none"

// Progress shows how far a pull is. A nil Progress shows nothing.
type Progress struct {
	mu      sync.Mutex
	display display
	s       state
}

// state is what there is to show.
type state struct {
	layers   []*transfer // those that are fetched, in the order of the manifest
	total    int64
	got      int64 // bytes that are here
	resumed  int64 // how many of them were here before
	finished int
	began    time.Time
}

// transfer is one layer on its way.
type transfer struct {
	digest string
	size   int64
	got    int64
	active bool // some of it is here, but not all
}

// display is a way to show progress. Its methods are called one at a time.
type display interface {
	begin(s *state)
	changed(s *state)
	finished(s *state, t *transfer)
	say(text string)
	end(s *state)
}

// NewProgress returns a Progress that writes to f in one of the [Styles]. "auto"
// is bars on a terminal that can show them, and plain lines elsewhere.
func NewProgress(f *os.File, style string) (*Progress, error) {
	if style == "auto" {
		style = "plain"
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil && os.Getenv("TERM") != "dumb" {
			style = "bar"
		}
	}
	switch style {
	case "bar":
		return &Progress{display: &bars{w: f, size: func() (int, int) { return terminalSize(f) }, now: time.Now}}, nil
	case "plain":
		return &Progress{display: plain{f}}, nil
	case "json":
		return &Progress{display: newJSONLines(f, time.Now)}, nil
	case "none":
		return nil, nil
	}
	return nil, fmt.Errorf("progress %q: want %s", style, Styles)
}

// begin announces blobs that will be fetched.
func (p *Progress) begin(blobs []layout.Descriptor) {
	if p == nil || len(blobs) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s = state{began: time.Now()}
	for _, d := range blobs {
		p.s.layers = append(p.s.layers, &transfer{digest: d.Digest, size: d.Size})
		p.s.total += d.Size
	}
	p.display.begin(&p.s)
}

// change calls f for a blob that was announced.
func (p *Progress) change(d layout.Descriptor, f func(*state, *transfer)) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.s.layers, func(t *transfer) bool { return t.digest == d.Digest }); i >= 0 {
		f(&p.s, p.s.layers[i])
	}
}

// add says that n more bytes of a blob are here, or fewer, if some have to be
// fetched again.
func (p *Progress) add(d layout.Descriptor, n int64) {
	p.change(d, func(s *state, t *transfer) {
		t.active = true
		t.got += n
		s.got += n
		p.display.changed(s)
	})
}

// resume says that n bytes of a blob were here before.
func (p *Progress) resume(d layout.Descriptor, n int64) {
	p.change(d, func(s *state, _ *transfer) { s.resumed += n })
	p.add(d, n)
}

// done says that a blob is complete.
func (p *Progress) done(d layout.Descriptor) {
	p.change(d, func(s *state, t *transfer) {
		t.active = false
		s.finished++
		p.display.finished(s, t)
	})
}

// say shows a message.
func (p *Progress) say(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.display.say(fmt.Sprintf(format, args...))
}

// finish says that nothing more comes.
func (p *Progress) finish() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.display.end(&p.s)
}

// plain writes a line for each layer that is complete: for logs.
type plain struct{ w io.Writer }

func (plain) begin(*state)   {}
func (plain) changed(*state) {}
func (plain) end(*state)     {}

func (p plain) say(text string) { fmt.Fprintf(p.w, "brolga: %s\n", text) }

func (p plain) finished(s *state, t *transfer) {
	fmt.Fprintf(p.w, "brolga: pulled layer %d/%d %.19s (%s)\n", s.finished, len(s.layers), t.digest, size(t.size))
}

// bars shows a bar for each layer that is on its way and one for all of them, on
// a terminal.
type bars struct {
	w     io.Writer
	size  func() (width, height int)
	now   func() time.Time
	last  time.Time // of the last drawing
	lines int       // that it has, 0 when nothing is drawn
	width int       // of the terminal then
}

const redrawAfter = 100 * time.Millisecond

func (b *bars) begin(*state) {}

func (b *bars) changed(s *state) {
	if b.now().Sub(b.last) >= redrawAfter {
		b.draw(s)
	}
}

func (b *bars) finished(s *state, _ *transfer) { b.draw(s) }

func (b *bars) say(text string) {
	b.clear()
	fmt.Fprintf(b.w, "brolga: %s\n", text)
}

func (b *bars) end(s *state) {
	b.clear()
	if s.finished > 0 && s.finished == len(s.layers) {
		fmt.Fprintf(b.w, "brolga: pulled %s (%s) in %.1f s\n", count(s.finished, "layer"), size(s.total), b.now().Sub(s.began).Seconds())
	}
}

func (b *bars) draw(s *state) {
	b.clear()
	width, height := b.size()
	// The last column stays free: what a terminal does there differs.
	lines := s.lines(width-1, height-1, b.now())
	fmt.Fprint(b.w, strings.Join(lines, "\n"))
	b.last, b.lines, b.width = b.now(), len(lines), width
}

// clear removes what is drawn. After the terminal has changed its width nobody
// knows where that is now; it stays, rather than that of others goes.
func (b *bars) clear() {
	if b.lines == 0 {
		return
	}
	if width, _ := b.size(); b.lines > 1 && width == b.width {
		fmt.Fprintf(b.w, "\x1b[%dA", b.lines-1)
	}
	fmt.Fprint(b.w, "\r\x1b[J")
	b.lines = 0
}

// lines returns what a terminal of that size shows.
func (s *state) lines(width, height int, now time.Time) []string {
	var lines []string
	for _, t := range s.layers {
		if t.active && len(lines) < height-1 {
			digest := strings.TrimPrefix(t.digest, "sha256:")
			lines = append(lines, line(fmt.Sprintf("  %.12s", digest), t.got, t.size, "", width))
		}
	}
	return append(lines, line(fmt.Sprintf("brolga: %d/%d layers", s.finished, len(s.layers)), s.got, s.total, s.speed(now), width))
}

// speed returns how fast it goes and how long it will still take, as far as that
// can be known.
func (s *state) speed(now time.Time) string {
	seconds := now.Sub(s.began).Seconds()
	perSecond := float64(s.got-s.resumed) / seconds
	if seconds < 1 || perSecond < 1 {
		return ""
	}
	left := time.Duration(float64(s.total-s.got) / perSecond * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf(", %s/s, %s left", size(int64(perSecond)), left)
}

const (
	minBar = 8
	maxBar = 40
)

// line puts a name, a bar and numbers into width columns; what has no room is
// left out, from the bar on.
func line(name string, got, total int64, more string, width int) string {
	got = min(max(got, 0), total)
	numbers := fmt.Sprintf("%s of %s", size(got), size(total))
	for _, text := range []string{numbers + more, numbers} {
		if room := min(width-len(name)-len(text)-4, maxBar); room >= minBar { // brackets and spaces
			return fmt.Sprintf("%s [%s] %s", name, bar(got, total, room), text)
		}
	}
	return fmt.Sprintf("%.*s", max(width, 0), name+" "+numbers)
}

func bar(got, total int64, width int) string {
	full := width
	if total > 0 {
		full = int(float64(got) / float64(total) * float64(width))
	}
	return strings.Repeat("=", full) + strings.Repeat(" ", width-full)
}

// terminalSize returns the columns and lines of a terminal; one that does not
// say has what terminals always had.
func terminalSize(f *os.File) (width, height int) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
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
