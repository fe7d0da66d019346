// SPDX-License-Identifier: Apache-2.0

// Package source opens the files and directories that names of images point to.
//
// Everything is opened with the identity of the calling thread, which is the
// user's: root takes it on first (package identity). Paths may lead through
// symbolic links, but not through those of /proc, which are files that this
// process has open and not ones that the user reached. What is not a regular
// file is refused, and a FIFO does not make anybody wait. The file that was
// opened is used from then on, not its name.
package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// File opens a regular file for reading.
func File(path string) (*os.File, error) {
	f, err := open(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.IsDir():
		err = fault.WithHint(fmt.Errorf("%s is a directory", path),
			"a root directory is named dir:"+path+", an OCI image layout oci:"+path)
	case !st.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Directory opens a directory, as a place only (O_PATH).
func Directory(path string) (*os.File, error) {
	f, err := open(path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is not a directory", path)
	}
	if err == nil {
		// O_PATH asks for no permission on the directory itself.
		err = denied(path, unix.Faccessat(int(f.Fd()), ".", unix.X_OK, 0))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Squashfs opens a squashfs. Only the first bytes of it are looked at.
func Squashfs(path string) (*os.File, error) {
	f, err := File(path)
	if err != nil {
		return nil, err
	}
	if err := checkMagic(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// magics are the beginnings of files that might be taken for a squashfs.
var magics = []struct {
	at   int
	text string
	hint string
}{
	{257, "ustar", "an archive is named oci-archive:FILE or docker-archive:FILE"},
	{0, "\x1f\x8b", "an archive is named oci-archive:FILE or docker-archive:FILE"},
	{0, "\x28\xb5\x2f\xfd", "an archive is named oci-archive:FILE or docker-archive:FILE"},
	{32, "SIF_MAGIC", "files of Apptainer are not supported; build a squashfs or an OCI archive from the same image"},
}

func checkMagic(f *os.File) error {
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if bytes.HasPrefix(head, []byte("hsqs")) {
		return nil
	}
	err = fmt.Errorf("%s is not a squashfs", f.Name())
	for _, m := range magics {
		if n >= m.at+len(m.text) && string(head[m.at:m.at+len(m.text)]) == m.text {
			return fault.WithHint(err, m.hint)
		}
	}
	return err
}

// open opens a path under the restrictions of this package (openat2(2)).
func open(path string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // a rename meanwhile
			continue
		case errors.Is(err, unix.ENOSYS): // before Linux 5.6
			return os.OpenFile(path, int(flags), 0)
		case errors.Is(err, unix.ENXIO): // a socket, a device without a driver
			return nil, fmt.Errorf("%s is not a regular file", path)
		}
		return nil, denied(path, err)
	}
}

func denied(path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "open", Path: path, Err: err}
}

// settled is how old the last change of a file must be for its times to tell
// that there was no other since: clocks of file systems tick, in whole seconds
// for some.
const settled = 2 * time.Second

// Stamp returns what identifies the content of a file as long as nobody changes
// the file: its inode, size and times. The time of the last status change
// cannot be set, so no write goes unnoticed. Devices have other numbers on other
// nodes and are left out. The result is "" for a file that was changed just now,
// which does not tell.
func Stamp(f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", denied(f.Name(), err)
	}
	changed := time.Unix(st.Ctim.Unix())
	if time.Since(changed) < settled {
		return "", nil
	}
	return fmt.Sprintf("%d %d %d.%09d %d.%09d", st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec), nil
}

// Way is how an open file or directory becomes a root file system.
type Way string

// The ways.
const (
	Kernel  Way = "kernel"  // squashfs, mounted by the kernel
	Fuse    Way = "fuse"    // squashfs, served by squashfuse
	Bind    Way = "bind"    // directory, shown as it is
	Convert Way = "convert" // squashfs, turned into an image of the store first
)

// WayOf says what the site's policy, a value of [config.Config.UserSquashfs],
// makes of a squashfs that a user names.
func WayOf(policy string, f *os.File) (Way, error) {
	switch {
	case policy == config.SquashfsDeny:
		return "", fault.WithHint(fmt.Errorf("%s: this cluster runs no squashfs files of users", f.Name()),
			"use an image in a registry, an archive or an OCI image layout")
	case policy == config.SquashfsKernel || trusted(f):
		return Kernel, nil
	case policy == config.SquashfsConvert:
		return Convert, nil
	}
	return Fuse, nil
}

// trusted says whether nobody but root can have written an open file, nor change
// it or the way to it. Files in FUSE are not trusted: who serves them may be a
// user, and says whose they are.
func trusted(f *os.File) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Type == unix.FUSE_SUPER_MAGIC {
		return false
	}
	return filepath.IsAbs(f.Name()) && trust.CheckOpen(f, f.Name()) == nil
}
