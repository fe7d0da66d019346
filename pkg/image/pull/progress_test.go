// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
)

// clock is a time that passes when a test says so.
type clock struct{ t time.Time }

func (c *clock) now() time.Time       { return c.t }
func (c *clock) pass(d time.Duration) { c.t = c.t.Add(d) }
func newClock() *clock                { return &clock{time.Unix(1000, 0)} }
func digest(c string) string          { return "sha256:" + strings.Repeat(c, 64) }
func blob(c string, size int64) layout.Descriptor {
	return layout.Descriptor{Digest: digest(c), Size: size}
}

// half of two layers, a third one waits.
func example(c *clock) *state {
	return &state{
		layers: []*transfer{
			{digest: digest("a"), size: 10 << 20, got: 10 << 20},
			{digest: digest("b"), size: 32 << 20, got: 16 << 20, active: true},
			{digest: digest("c"), size: 4 << 20, got: 1 << 20, active: true},
			{digest: digest("d"), size: 4 << 20},
		},
		total: 50 << 20, got: 27 << 20, resumed: 7 << 20, finished: 1, began: c.t.Add(-10 * time.Second),
	}
}

func TestLines(t *testing.T) {
	c := newClock()
	for _, tt := range []struct {
		width, height int
		want          []string
	}{
		{100, 20, []string{
			"  bbbbbbbbbbbb [====================                    ] 16 MiB of 32 MiB",
			"  cccccccccccc [==========                              ] 1.0 MiB of 4.0 MiB",
			"brolga: 1/4 layers [=====================                   ] 27 MiB of 50 MiB, 2.0 MiB/s, 12s left",
		}},
		{60, 20, []string{
			"  bbbbbbbbbbbb [=============             ] 16 MiB of 32 MiB",
			"  cccccccccccc [======                  ] 1.0 MiB of 4.0 MiB",
			"brolga: 1/4 layers [===========           ] 27 MiB of 50 MiB",
		}},
		{30, 20, []string{
			"  bbbbbbbbbbbb 16 MiB of 32 Mi",
			"  cccccccccccc 1.0 MiB of 4.0 ",
			"brolga: 1/4 layers 27 MiB of 5",
		}},
		{60, 2, []string{
			"  bbbbbbbbbbbb [=============             ] 16 MiB of 32 MiB",
			"brolga: 1/4 layers [===========           ] 27 MiB of 50 MiB",
		}},
		{0, 1, []string{""}},
		{-1, 0, []string{""}},
	} {
		got := example(c).lines(tt.width, tt.height, c.t)
		if !slices.Equal(got, tt.want) {
			t.Errorf("lines(%d, %d) =\n%s\nwant\n%s", tt.width, tt.height, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
		for _, l := range got {
			if len(l) > max(tt.width, 0) {
				t.Errorf("%q is wider than %d", l, tt.width)
			}
		}
	}
}

func TestLinesOfOddNumbers(t *testing.T) {
	c := newClock()
	s := &state{layers: []*transfer{{digest: digest("a"), got: 5, active: true}, {digest: digest("b"), size: 1 << 62, got: 1 << 62, active: true}}, total: 1 << 62, got: -5, began: c.t}
	for _, l := range s.lines(80, 20, c.t) {
		if len(l) > 80 {
			t.Errorf("%q is wider than 80", l)
		}
	}
}

// TestBars checks that all of what is drawn goes, and nothing else.
func TestBars(t *testing.T) {
	c := newClock()
	var out bytes.Buffer
	width := 70
	b := &bars{w: &out, size: func() (int, int) { return width, 10 }, now: c.now}
	p := &Progress{display: b}
	take := func() string {
		defer out.Reset()
		return out.String()
	}
	p.begin([]layout.Descriptor{blob("a", 100), blob("b", 100)})
	p.s.began = c.t
	c.pass(time.Second)
	p.add(blob("a", 100), 50)
	if got := take(); strings.Count(got, "\n") != 1 || strings.Contains(got, "\x1b[J") || !strings.Contains(got, "50 B of 100 B") {
		t.Errorf("first drawing %q", got)
	}
	p.add(blob("b", 100), 10)
	if got := take(); got != "" {
		t.Errorf("drawn again at once: %q", got)
	}
	c.pass(time.Second)
	p.add(blob("b", 100), 10)
	if got := take(); !strings.HasPrefix(got, "\x1b[1A\r\x1b[J  aaaaaaaaaaaa [") {
		t.Errorf("second drawing %q; want it over the first", got)
	}
	p.say("hello")
	if got := take(); got != "\x1b[2A\r\x1b[Jbrolga: hello\n" {
		t.Errorf("message %q; want it in place of the drawing", got)
	}
	p.done(blob("a", 100))
	take()
	width = 30 // another line or two now, nobody knows
	p.done(blob("b", 100))
	if got := take(); strings.Contains(got, "A") || !strings.HasPrefix(got, "\r\x1b[J") {
		t.Errorf("drawing after a resize %q; want nothing above it touched", got)
	}
	p.finish()
	if got := take(); got != "\r\x1b[Jbrolga: pulled 2 layers (200 B) in 2.0 s\n" {
		t.Errorf("end %q", got)
	}
	p.finish()
}

func TestPlain(t *testing.T) {
	f, read := file(t)
	p, err := NewProgress(f, "auto") // it is no terminal
	if err != nil {
		t.Fatal(err)
	}
	p.begin([]layout.Descriptor{blob("a", 100), blob("b", 2048)})
	p.add(blob("b", 2048), 2048)
	p.done(blob("b", 2048))
	p.say("waiting for %s", "x")
	p.finish()
	if got, want := read(), "brolga: pulled layer 1/2 "+digest("b")[:19]+" (2.0 KiB)\nbrolga: waiting for x\n"; got != want {
		t.Errorf("plain progress %q; want %q", got, want)
	}
}

func TestJSON(t *testing.T) {
	f, read := file(t)
	p, err := NewProgress(f, "json")
	if err != nil {
		t.Fatal(err)
	}
	p.begin([]layout.Descriptor{blob("a", 100)})
	p.add(blob("a", 100), 40)
	p.say("x\ny")
	p.done(blob("a", 100))
	p.finish()
	want := `{"event":"begin","layers":1,"bytes":100}
{"event":"progress","layers":0,"bytes":40}
{"event":"message","text":"x\ny"}
{"event":"layer","digest":"` + digest("a") + `","layers":1,"bytes":100}
{"event":"end","layers":1,"bytes":40}
`
	got := read()
	if got != want {
		t.Errorf("JSON progress\n%s\nwant\n%s", got, want)
	}
	for line := range strings.Lines(got) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q is not JSON", line)
		}
	}
}

func TestProgressStyles(t *testing.T) {
	f, read := file(t)
	p, err := NewProgress(f, "none")
	if err != nil || p != nil {
		t.Errorf("NewProgress(none) = %v, %v; want nil", p, err)
	}
	p.begin([]layout.Descriptor{blob("a", 1)})
	p.add(blob("a", 1), 1)
	p.done(blob("a", 1))
	p.say("x")
	p.finish()
	if got := read(); got != "" {
		t.Errorf("none writes %q", got)
	}
	if _, err := NewProgress(f, "fancy"); err == nil || !strings.Contains(err.Error(), Styles) {
		t.Errorf("NewProgress(fancy) = %v; want an error that lists styles", err)
	}
}

// file returns a file and how to read what was written to it.
func file(t *testing.T) (*os.File, func() string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, func() string {
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}
