// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// executable returns the beginning of an ELF file whose loader has the name
// that stands at an offset.
func executable(loader string, offset uint64) []byte {
	text := make([]byte, 64+56, 4096)
	copy(text, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint64(text[32:], 64) // e_phoff
	binary.LittleEndian.PutUint16(text[54:], 56) // e_phentsize
	binary.LittleEndian.PutUint16(text[56:], 1)  // e_phnum
	binary.LittleEndian.PutUint32(text[64:], 3)  // PT_INTERP
	binary.LittleEndian.PutUint64(text[72:], offset)
	binary.LittleEndian.PutUint64(text[96:], uint64(len(loader)))
	return append(text, loader...)
}

func TestInterpreter(t *testing.T) {
	good := executable("/lib/ld.so\x00", 120)
	changed := func(at int, value byte) []byte {
		text := append([]byte(nil), good...)
		text[at] = value
		return text
	}
	for _, tt := range []struct {
		name string
		text []byte
		want string
	}{
		{"a program", good, "/lib/ld.so"},

		{"empty", nil, ""},
		{"a script", []byte("#!/bin/sh\necho\n"), ""},
		{"cut off in the header", good[:40], ""},
		{"cut off in the segments", good[:90], ""},
		{"cut off in the name", good[:125], ""},
		{"name beyond the page", executable("/lib/ld.so\x00", 1<<40), ""},
		{"name around the end of numbers", executable("/lib/ld.so\x00", ^uint64(0)), ""},
		{"segments beyond the page", changed(38, 0xff), ""},
		{"segments of no size", changed(54, 0), "/lib/ld.so"},
		{"another architecture's width", changed(4, 1), ""},
		{"another byte order", changed(5, 2), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "program")
			if err := os.WriteFile(path, tt.text, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := interpreter(f); got != tt.want {
				t.Errorf("interpreter = %q; want %q", got, tt.want)
			}
		})
	}
}

// resident tells whether the kernel holds all of a file in memory.
func resident(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return false
	}
	defer unix.Munmap(data)
	pages := make([]byte, (len(data)+os.Getpagesize()-1)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		return false
	}
	for _, p := range pages {
		if p&1 == 0 {
			return false
		}
	}
	return true
}

// squashFiles makes a squashfs of files and returns it open.
func squashFiles(t *testing.T, files map[string]string) *os.File {
	t.Helper()
	needRoot(t)
	tree := t.TempDir()
	for name, content := range files {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return squash(t, tree)
}

// TestReadAhead checks that the kernel holds a program, its loader and its C
// library when all that was asked for is the program's name.
func TestReadAhead(t *testing.T) {
	program, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("library ", 1<<16)
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	loader := strings.TrimPrefix(interpreter(f), "/")
	if loader == "" {
		t.Skip("this machine's programs are static")
	}
	libc := filepath.Join(filepath.Dir(loader), "libc.so.6")
	image := squashFiles(t, map[string]string{
		"bin/true": string(text), "bin/other": large + "1", loader: large + "2", libc: large + "3",
	})
	for _, tt := range []struct{ program, path string }{{"true", "/none:/bin"}, {"/bin/true", ""}} {
		inRootfs(t, image, func(r *Rootfs) error {
			r.ReadAhead(tt.program, tt.path)
			for _, name := range []string{loader, libc} {
				path := filepath.Join(r.Path, name)
				for end := time.Now().Add(10 * time.Second); !resident(path); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Errorf("ReadAhead(%q): %s was not read", tt.program, name)
						break
					}
				}
			}
			if resident(filepath.Join(r.Path, "bin/other")) {
				t.Errorf("ReadAhead(%q) reads another program", tt.program)
			}
			return nil
		})
	}
}

// TestReadAheadLeavesOut checks names that are nothing to be read: it neither
// waits nor opens what is not the image's.
func TestReadAheadLeavesOut(t *testing.T) {
	image := squashFiles(t, map[string]string{"bin/script": "#!/bin/sh\n"})
	inRootfs(t, image, func(r *Rootfs) error {
		if err := unix.Mkfifo(filepath.Join(r.Path, "bin/fifo"), 0o644); err != nil {
			return err
		}
		for _, program := range []string{"", "none", "script", "/bin/fifo", "/bin", "./relative", "/proc/self/exe", "../../../../bin/true"} {
			r.ReadAhead(program, "/bin:relative::/")
		}
		if f, err := r.openImageFile("/../../../../../etc/hostname", inOverlay); err == nil {
			f.Close()
			t.Error("a path leads out of the image")
		}
		return nil
	})
}
