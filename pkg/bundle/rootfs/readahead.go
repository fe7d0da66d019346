// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// readAheadLimit is how much of a file is read ahead. Programs and C libraries
// are smaller; of one that is not, most is not needed at once.
const readAheadLimit = 4 << 20

// ReadAhead has the kernel read what a program needs before it can do anything:
// its file, its loader and the C library. Unpacking those from a squashfs that
// nobody has read yet takes as long as all of the rest of a start, and there is
// time for it while the container is made. program is a path or a name to be
// looked up in searchPath (PATH). What cannot be found or read is left out: this
// decides nothing.
//
// It reads as root what the image and the user name, so it opens regular files
// of the image only, and nobody sees what it read.
func (r *Rootfs) ReadAhead(program, searchPath string) {
	f := r.openProgram(program, searchPath)
	if f == nil {
		return
	}
	defer f.Close()
	loader, err := r.openImageFile(interpreter(f), inOverlay)
	if err == nil {
		defer loader.Close()
		if path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", loader.Fd())); err == nil {
			path = strings.TrimPrefix(path, r.Path)
			// Of GNU and of musl, where loader and library are one.
			libc, err := r.openImageFile(filepath.Join(filepath.Dir(path), "libc.so.6"), inOverlay)
			if err == nil {
				defer libc.Close()
				fetch(libc)
			}
		}
		fetch(loader)
	}
	fetch(f)
}

// openProgram finds a program as execvp(3) does.
func (r *Rootfs) openProgram(program, searchPath string) *os.File {
	if strings.Contains(program, "/") {
		f, _ := r.openImageFile(program, inOverlay)
		return f
	}
	for _, dir := range filepath.SplitList(searchPath) {
		if f, err := r.openImageFile(filepath.Join(dir, program), inOverlay); err == nil {
			return f
		}
	}
	return nil
}

// inOverlay are the restrictions (openat2(2)) under which a path stays in the overlay.
const inOverlay = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openImageFile opens a regular file of the image or the overlay, by an absolute
// path under the restrictions of resolve.
func (r *Rootfs) openImageFile(path string, resolve uint64) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, os.ErrNotExist
	}
	handle, err := openPath(int(r.root.Fd()), path, resolve)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	st, err := handle.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, os.ErrInvalid
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", handle.Fd()), os.O_RDONLY|unix.O_NONBLOCK, 0)
}

func fetch(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, readAheadLimit, unix.FADV_WILLNEED) }

// interpreter returns the loader that an executable names (elf(5), PT_INTERP), as
// far as its first page tells, or "".
func interpreter(f *os.File) string {
	page := make([]byte, 4096)
	n, err := f.ReadAt(page, 0)
	if err != nil && err != io.EOF {
		return ""
	}
	page = page[:n]
	var header elf.Header64
	if binary.Read(bytes.NewReader(page), binary.LittleEndian, &header) != nil ||
		string(header.Ident[:elf.EI_DATA+1]) != elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)}) {
		return ""
	}
	for i := range uint64(header.Phnum) {
		var segment elf.Prog64
		at := header.Phoff + i*uint64(header.Phentsize)
		if at > uint64(n) || binary.Read(bytes.NewReader(page[at:]), binary.LittleEndian, &segment) != nil {
			return ""
		}
		if elf.ProgType(segment.Type) == elf.PT_INTERP && segment.Off <= uint64(n) && segment.Filesz <= uint64(n)-segment.Off {
			return string(bytes.TrimRight(page[segment.Off:segment.Off+segment.Filesz], "\x00"))
		}
	}
	return ""
}
