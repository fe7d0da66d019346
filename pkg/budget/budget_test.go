// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	for text, large := range map[string]bool{"": false, "1234": false, "12345": true} {
		got, err := Read(strings.NewReader(text), 4)
		if errors.Is(err, ErrLarge) != large || (!large && string(got) != text) {
			t.Errorf("Read(%q) = %q, %v; want too large: %v", text, got, err, large)
		}
	}
}

// TestReadEnds checks that no more is read than can be kept.
func TestReadEnds(t *testing.T) {
	zeros, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zeros.Close()
	if _, err := Read(zeros, 1<<20); !errors.Is(err, ErrLarge) || err.Error() != "too large: the limit is 1 MiB" {
		t.Errorf("Read of /dev/zero = %v; want too large", err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := File(path, 5); err != nil || string(got) != "12345" {
		t.Errorf("File = %q, %v", got, err)
	}
	if _, err := File(path, 4); err == nil || err.Error() != path+": too large: the limit is 4 bytes" {
		t.Errorf("File with a limit of 4 = %v; want the file named", err)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{1: "1 bytes", 1 << 10: "1 KiB", 1<<10 + 1: "1025 bytes", 4 << 20: "4 MiB", 4<<20 + 1<<10: "4097 KiB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %s; want %s", n, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	long := strings.Repeat("x", 63) + "ä" + strings.Repeat("x", 100)
	for text, want := range map[string]string{"": "", "short": "short", long: strings.Repeat("x", 63) + "..."} {
		if got := Shorten(text); got != want {
			t.Errorf("Shorten(%q) = %q; want %q", text, got, want)
		}
	}
}

func TestMeter(t *testing.T) {
	m := NewMeter(strings.NewReader("123456789"), "it is", 4)
	for _, want := range []string{"1234", "5678"} {
		if got, err := io.ReadAll(m); string(got) != want || !errors.Is(err, ErrLarge) {
			t.Errorf("ReadAll = %q, %v; want %q and too large", got, err, want)
		}
		m.Renew()
	}
	if got, err := io.ReadAll(m); string(got) != "9" || err != nil {
		t.Errorf("ReadAll = %q, %v; want the rest", got, err)
	}
}

func TestRoundedSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 MiB", 1: "1 KiB", 1 << 19: "512 KiB", 1<<20 + 1: "2 MiB", 5 << 20: "5 MiB"} {
		if got := RoundedSize(n); got != want {
			t.Errorf("RoundedSize(%d) = %s; want %s", n, got, want)
		}
	}
}
