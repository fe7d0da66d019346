// SPDX-License-Identifier: Apache-2.0

package mountns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMount(t *testing.T) {
	for _, tt := range []struct {
		line string
		want Mount
		ok   bool
	}{
		{"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n", Mount{36, 35, "/mnt2", "ext3", "/dev/root"}, true},
		{`36 35 0:4 / /a\040b\134 rw - fuse.x a\011b rw`, Mount{36, 35, `/a b\`, "fuse.x", "a\tb"}, true},
		{`36 35 0:4 / /\04 rw shared:1 master:2 - tmpfs  rw`, Mount{36, 35, `/\04`, "tmpfs", ""}, true},
		{"", Mount{}, false},
		{"36 35 0:4 / /a rw", Mount{}, false},
		{"x 35 0:4 / /a rw - tmpfs t rw", Mount{}, false},
		{"36 x 0:4 / /a rw - tmpfs t rw", Mount{}, false},
	} {
		got, err := parseMount(tt.line)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("parseMount(%q) = %+v, %v; want %+v", tt.line, got, err, tt.want)
		}
	}
}

// TestOfFile checks that the uppermost of two mounts at a place is found, and that one
// of another namespace is not.
func TestOfFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts file systems")
	}
	dir := filepath.Join(t.TempDir(), "a b")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var inside *os.File
	err := Do(nil, func() (err error) {
		err = errors.Join(unix.Mount("below", dir, "tmpfs", 0, ""), unix.Mount("above", dir, "ramfs", 0, ""))
		if err == nil {
			inside, err = os.Open(dir)
		}
		if err != nil {
			return err
		}
		m, err := Of(inside)
		if err == nil && (m.Point != dir || m.Type != "ramfs" || m.Source != "above") {
			err = fmt.Errorf("Of = %+v; want the ramfs", m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	if m, err := Of(inside); err == nil {
		t.Errorf("Of = %+v for a mount of another namespace; want an error", m)
	}
}
