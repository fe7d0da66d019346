// SPDX-License-Identifier: Apache-2.0

// Package userfile opens files and directories that users name: images, sources of mounts,
// and places to save to.
//
// Everything is opened with the identity of the calling thread, which is the
// user's: root takes it on first (package identity). Paths may lead through
// symbolic links, but not through those of /proc, which are files that this
// process has open and not ones that the user reached. What is not a regular
// file is refused, and a FIFO does not make anybody wait. The file that was
// opened is used from then on, not its name.
package userfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

// File opens a regular file for reading.
func File(path string) (*os.File, error) {
	f, err := open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
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
	f, err := safefile.Open(unix.AT_FDCWD, path, unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	switch {
	case errors.Is(err, unix.ENOSYS): // before Linux 5.6
		return os.OpenFile(path, int(flags), 0)
	case errors.Is(err, unix.ENXIO): // a socket, a device without a driver
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return f, denied(path, err)
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

// Policy is what the site says of squashfs files that users name.
type Policy struct {
	// UserSquashfs and Trusted are those of [config.Config].
	UserSquashfs string
	Trusted      []string
}

// PolicyOf returns the policy of a configuration.
func PolicyOf(c config.Config) Policy { return Policy{c.UserSquashfs, c.TrustedSquashfs} }

// WayOf says what the site's policy makes of a squashfs that a user names. Where
// nothing of a container is mounted yet, a file that root alone can have written is
// mounted by the kernel.
func WayOf(p Policy, f *os.File) (Way, error) {
	switch {
	case p.UserSquashfs == config.SquashfsDeny:
		return "", fault.WithHint(fmt.Errorf("%s: this cluster runs no squashfs files of users", f.Name()),
			"use an image in a registry, an archive or an OCI image layout")
	case p.UserSquashfs == config.SquashfsKernel || p.trusts(f):
		return Kernel, nil
	case p.UserSquashfs == config.SquashfsConvert:
		return Convert, nil
	}
	return Fuse, nil
}

// trusts reports whether nobody but root can have written an open file, nor change
// it or the way to it, so far as this node or the site knows.
func (p Policy) trusts(f *os.File) bool {
	if !filepath.IsAbs(f.Name()) || trust.CheckOpen(f, f.Name()) != nil {
		return false
	}
	return isLocal(f) || p.names(f)
}

// local are the file systems in which a file of root's was written by root: those on
// disks and in the memory of this node, and those of clusters, whose servers nobody
// chooses but who mounts them. Who serves NFS, SMB, 9P, AFS or FUSE says whose a file
// is, and that may be a user: automounters mount what a path names. What is in a
// squashfs or below an overlay came from elsewhere.
var local = []string{
	"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "ramfs", "rootfs",
	"lustre", "gpfs", "beegfs", "ceph",
}

// isLocal reports whether a file is on one of them. One in a file (loop(4)) is no
// better than that file, which may be a user's.
func isLocal(f *os.File) bool {
	m, err := mountns.Of(f)
	return err == nil && slices.Contains(local, m.Type) && !strings.HasPrefix(m.Source, "/dev/loop")
}

// names reports whether a file is in one of the directories that the site trusts.
func (p Policy) names(f *os.File) bool {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(p.Trusted, func(dir string) bool {
		resolved, err := filepath.EvalSymlinks(dir)
		return err == nil && strings.HasPrefix(path, strings.TrimSuffix(resolved, "/")+"/")
	})
}
