// SPDX-License-Identifier: Apache-2.0

// Package budget limits what is read of files and messages that users make.
//
// The helper runs as root and outside the limits of the job, so it must not keep, nor
// build, more than a user could justify. Limits are in bytes and are checked before
// anything is parsed.
package budget

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"
)

// ErrLarge means that something has more bytes than its limit.
var ErrLarge = errors.New("too large")

// Large returns an error that names the limit and wraps [ErrLarge].
func Large(limit int64) error { return fmt.Errorf("%w: the limit is %s", ErrLarge, Size(limit)) }

// Size writes a number of bytes for people.
func Size(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// RoundedSize writes a number of bytes, rounded up to mebibytes, or to kibibytes if there are
// few.
func RoundedSize(n int64) string {
	if n > 0 && n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1<<10-1)>>10)
	}
	return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20)
}

// Read reads all of r, which may be as long as the limit.
func Read(r io.Reader, limit int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case n > limit:
		return nil, Large(limit)
	}
	return b.Bytes(), nil
}

// Open reads an open file, from its beginning, which may be as long as the limit.
func Open(f *os.File, limit int64) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, Large(limit)
	}
	// The file may grow at the same time.
	b := bytes.NewBuffer(make([]byte, 0, st.Size()+bytes.MinRead))
	n, err := b.ReadFrom(io.LimitReader(f, limit+1))
	if err == nil && n > limit {
		err = Large(limit)
	}
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// File reads a file as long as the limit.
func File(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := Open(f, limit)
	if errors.Is(err, ErrLarge) {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return text, err
}

// shown is how much of a text stands in a message.
const shown = 64

// Shorten returns the beginning of a text, for messages.
func Shorten(text string) string {
	if len(text) <= shown {
		return text
	}
	end := shown
	for end > shown-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "..."
}

// Meter passes on what r reads until its allowance is used up: then it fails. A decoder
// that keeps one value at a time gets a new allowance for each.
type Meter struct {
	r     io.Reader
	what  string
	limit int64
	left  int64
}

// NewMeter returns a reader with an allowance. What begins its error: "it is".
func NewMeter(r io.Reader, what string, limit int64) *Meter { return &Meter{r, what, limit, limit} }

// Renew gives the full allowance again.
func (m *Meter) Renew() { m.left = m.limit }

// Read implements io.Reader.
func (m *Meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, fmt.Errorf("%s %w", m.what, Large(m.limit))
	}
	n, err := m.r.Read(p[:min(int64(len(p)), m.left)])
	m.left -= int64(n)
	return n, err
}
