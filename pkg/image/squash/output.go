// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// output is a file that has no name until it is complete, so that nothing is left when
// its writer is killed. Where the file system cannot do that, as NFS, it has the name.
type output struct {
	file  *os.File
	dir   *os.File
	name  string
	mode  uint32
	named bool
}

// createOutput creates the file, with the permissions that the umask leaves of 0644.
func createOutput(dir *os.File, name string) (*output, error) {
	o := &output{dir: dir, name: name}
	const flags = unix.O_RDWR | unix.O_CLOEXEC
	fd, err := unix.Openat(int(dir.Fd()), ".", flags|unix.O_TMPFILE, 0o644)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		o.named = true
		fd, err = unix.Openat(int(dir.Fd()), name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o644)
	}
	if err != nil {
		return nil, err
	}
	o.file = os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		o.mode = st.Mode & 0o777
		err = unix.Fchmod(fd, 0o600) // tar2sqfs opens it again
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// publish gives the file its permissions and, when the disk has it, its name.
func (o *output) publish() error {
	fd := int(o.file.Fd())
	err := unix.Fchmod(fd, o.mode)
	if err == nil {
		err = o.file.Sync()
	}
	if err == nil && !o.named {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), int(o.dir.Fd()), o.name, unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	o.named = false // close leaves it
	return nil
}

// close closes the file, and removes one with a name that is not published.
func (o *output) close() {
	if o.named {
		_ = unix.Unlinkat(int(o.dir.Fd()), o.name, 0)
	}
	o.file.Close()
}
