// SPDX-License-Identifier: Apache-2.0

package regular

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	socket, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	err = errors.Join(
		os.WriteFile(in("file"), []byte("text"), 0o600),
		os.WriteFile(in("full"), []byte(strings.Repeat("x", 1<<10)), 0o600),
		os.WriteFile(in("long"), []byte(strings.Repeat("x", 1<<10+1)), 0o600),
		os.Symlink("file", in("link")), os.Symlink("loop", in("loop")), os.Symlink("fifo", in("tofifo")),
		unix.Mkfifo(in("fifo"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		size int // of what is read
		err  error
	}{
		{name: in("file"), size: 4},
		{name: in("link"), size: 4},
		{name: in("full"), size: 1 << 10},

		{name: in("long"), err: budget.ErrLarge},
		{name: in("none"), err: fs.ErrNotExist},
		{name: in("loop"), err: unix.ELOOP},
		{name: in("fifo"), err: ErrNot},
		{name: in("tofifo"), err: ErrNot},
		{name: in("socket"), err: ErrNot},
		{name: dir, err: ErrNot},
		{name: "/dev/zero", err: ErrNot},
		{name: "/dev/tty", err: ErrNot},
		{name: "/proc/self/fd", err: ErrNot},
	} {
		t.Run(filepath.Base(tt.name), func(t *testing.T) {
			text, err := Read(tt.name, 1<<10)
			switch {
			case tt.err == nil:
				if err != nil || len(text) != tt.size {
					t.Errorf("Read = %d bytes, %v; want %d", len(text), err, tt.size)
				}
			case !errors.Is(err, tt.err):
				t.Errorf("Read = %d bytes, %v; want the error %v", len(text), err, tt.err)
			case !strings.Contains(err.Error(), tt.name):
				t.Errorf("the error %q does not name the file", err)
			}
		})
	}
}
