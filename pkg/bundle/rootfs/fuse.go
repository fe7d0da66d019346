// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/command"
	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/sandbox"
)

// mountFuse lets squashfuse, as the user, serve the image at path.
//
// The kernel never reads the image, and the program can do nothing that its
// user could not do. It has the image and one end of the connection as
// descriptors, both opened here, and lives in a mount namespace without the
// mount that it serves. So its life is that of the mount: when the container's
// namespace is gone, the connection ends and the program with it; when the
// program is gone, every access fails at once, because nobody else has its end.
//
// Sources: fuse(4), mount.fuse3(8); libfuse takes /dev/fd/N for a mount point
// that is mounted already.
func (r *Rootfs) mountFuse(image *os.File, squashfuse, path string) error {
	connection, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		return fault.WithHint(fmt.Errorf("open FUSE: %w", err), "an administrator lets users open it: chmod 0666 /dev/fuse")
	}
	if err != nil {
		return fault.WithHint(fmt.Errorf("open FUSE: %w", err), "an administrator loads the kernel module: modprobe fuse")
	}
	defer connection.Close()
	// The container's processes are the user's and root's: allow_other.
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions,allow_other", connection.Fd(), r.params.User.UID, r.params.User.GID)
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("squashfuse", path, "fuse.squashfuse", flags, options); err != nil {
		return fmt.Errorf("mount FUSE: %w", err)
	}
	said, err := messages()
	if err != nil {
		return err
	}
	defer said.Close()
	server, done, err := r.fuseServer(image, connection, squashfuse)
	if err != nil {
		return err
	}
	defer done()
	server.Stderr = said
	err = mountns.Do(nil, func() error {
		return r.params.Servers.start(func() (int, error) { return command.Start(server) })
	})
	if err != nil {
		return err
	}
	if err := connection.Close(); err != nil {
		return err
	}
	// The first access waits for the program, or for its end.
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("squashfuse: %w", lastMessage(said, err))
	}
	return nil
}

// fuseServer returns the command that serves an image, in a sandbox: it reads an image
// that anyone may have made, and has the user's rights to everything else. It keeps the
// image and the connection.
func (r *Rootfs) fuseServer(image, connection *os.File, squashfuse string) (command.Cmd, func(), error) {
	if _, err := os.Stat(squashfuse); errors.Is(err, os.ErrNotExist) {
		return command.Cmd{}, nil, fault.WithHint(fmt.Errorf("%s is not installed", squashfuse),
			"an administrator installs squashfuse, or changes user_squashfs in the site configuration")
	}
	box := sandbox.Of(r.params.Sandbox, sandbox.Programs(squashfuse), []sandbox.Rule{
		sandbox.ReadOpen(image),     // it opens it again
		sandbox.Device("/dev/fuse"), // which it may open for each of its threads
	})
	return box.Around(config.LauncherPath(), command.Cmd{
		Path:     squashfuse,
		Args:     []string{"-f", "/proc/self/fd/3", "/dev/fd/4"},
		Identity: &r.params.User,
		Files:    []*os.File{image, connection},
		Join:     r.params.Join,
	})
}

// messages returns a file of limited size for what a program says that outlives
// this one.
func messages() (*os.File, error) {
	return safefile.Buffer("squashfuse-messages", 64<<10)
}

// lastMessage returns the last line that a program wrote as an error, or err.
func lastMessage(said *os.File, err error) error {
	text := make([]byte, 64<<10)
	n, _ := said.ReadAt(text, 0)
	lines := strings.Split(string(bytes.Trim(text[:n], "\x00\n")), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return errors.New(last)
	}
	return err
}
