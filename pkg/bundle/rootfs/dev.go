// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// nodes are the devices every container has (runtime specification,
// config-linux.md, "Default Devices").
var nodes = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9},
	{"tty", 5, 0}, {"ptmx", 5, 2},
}

// links are the symbolic links every container has (same place).
var links = [][2]string{
	{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"},
	{"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"},
}

// shared are directories of the host's /dev that tasks need: terminals that
// slurmstepd opened, and memory shared with processes outside the container.
var shared = []string{"pts", "shm", "mqueue"}

// MountDev makes /dev: the default devices and those of the host that match
// patterns. Everything else of the host's /dev stays out of reach. With ownIPC
// shared memory is the container's own, and message queues are left to be
// mounted where their namespace is.
func (r *Rootfs) MountDev(patterns []string, ownIPC bool) error {
	dev := r.nextStage()
	if err := os.Mkdir(dev, 0o755); err != nil {
		return fmt.Errorf("lay out /dev: %w", err)
	}
	if err := unix.Mount("brolga", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=64k,nr_inodes=1k"); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	fill := fillDev
	if r.params.Rootless {
		fill = r.bindDev
	}
	if err := fill(dev); err != nil {
		return fmt.Errorf("lay out /dev: %w", err)
	}
	if ownIPC {
		if err := addOwnMemory(dev); err != nil {
			return err
		}
	}
	if err := r.addHostDevices(dev, patterns, ownIPC); err != nil {
		return err
	}
	var err error
	if r.dev, err = os.OpenFile(dev, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return fmt.Errorf("open /dev: %w", err)
	}
	if err := r.owns(r.dev); err != nil {
		return err
	}
	if err := r.show(dev, "/dev", true); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	return nil
}

// ShowDevAgain shows /dev, with all that is mounted in it, once more, at a path that
// leads through nothing of the image: libcontainer wants one.
func (r *Rootfs) ShowDevAgain() (path string, err error) {
	path = filepath.Join(r.params.Dir, "dev")
	if err = os.Mkdir(path, 0o755); err == nil {
		err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", r.dev.Fd()), path, "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err != nil {
		return "", fmt.Errorf("mount /dev once more: %w", err)
	}
	return path, nil
}

// LabelDev gives /dev an extended attribute.
func (r *Rootfs) LabelDev(name string, value []byte) error {
	return unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d", r.dev.Fd()), name, value, 0)
}

func fillDev(dev string) error {
	for _, n := range nodes {
		path := filepath.Join(dev, n.name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(n.major, n.minor))); err != nil {
			return fmt.Errorf("make %s: %w", n.name, err)
		}
		if err := os.Chmod(path, 0o666); err != nil { // the umask may have taken bits
			return err
		}
	}
	return linkDev(dev)
}

// bindDev is fillDev for who may not make devices: the nodes are the host's. Its
// /dev/ptmx would only work beside the host's terminals, which belong to an
// instance that users may not open new ones in, mostly (devpts,
// Documentation/filesystems/devpts.rst). So the container has an instance of its
// own, and the terminal that the user sits at is /dev/console, where ttyname(3)
// finds it.
func (r *Rootfs) bindDev(dev string) error {
	for _, n := range nodes {
		if n.name == "ptmx" {
			continue
		}
		if _, err := r.prepare(Mount{Source: "/dev/" + n.name, Devices: true, NoExec: true}, filepath.Join(dev, n.name)); err != nil {
			return fmt.Errorf("mount %s: %w", n.name, err)
		}
	}
	pts := filepath.Join(dev, "pts")
	err := os.Mkdir(pts, 0o755)
	if err == nil {
		err = unix.Mount("brolga", pts, "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
	}
	if err == nil {
		err = os.Symlink("pts/ptmx", filepath.Join(dev, "ptmx"))
	}
	if err != nil {
		return fmt.Errorf("mount pts: %w", err)
	}
	if r.params.Terminal != "" {
		if _, err := r.prepare(Mount{Source: r.params.Terminal, Devices: true, NoExec: true}, filepath.Join(dev, "console")); err != nil {
			return fmt.Errorf("mount the terminal %s: %w", r.params.Terminal, err)
		}
	}
	return linkDev(dev)
}

func linkDev(dev string) error {
	for _, l := range links {
		if err := os.Symlink(l[0], filepath.Join(dev, l[1])); err != nil {
			return err
		}
	}
	return nil
}

// addOwnMemory makes /dev/shm; the kernel's limit is half of the memory, and a
// step's cgroup has its own.
func addOwnMemory(dev string) error {
	shm := filepath.Join(dev, "shm")
	err := errors.Join(os.Mkdir(shm, 0o755), os.Mkdir(filepath.Join(dev, "mqueue"), 0o755))
	if err == nil {
		err = unix.Mount("brolga", shm, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777")
	}
	if err != nil {
		return fmt.Errorf("mount /dev/shm: %w", err)
	}
	return nil
}

// addHostDevices mounts what is the host's into dev, which nobody can reach yet.
func (r *Rootfs) addHostDevices(dev string, patterns []string, ownIPC bool) error {
	mounts := []Mount{}
	for _, name := range shared {
		if ownIPC && name != "pts" || r.params.Rootless && name == "pts" {
			continue
		}
		mounts = append(mounts, Mount{Source: filepath.Join("/dev", name), Devices: name == "pts"})
	}
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("find devices %s: %w", pattern, err)
		}
		// Nothing is made in a directory that is the host's: it shows already.
		paths = slices.DeleteFunc(paths, isShared)
		for _, path := range paths {
			mounts = append(mounts, Mount{Source: path, Devices: true})
		}
	}
	var errs []error
	for _, m := range mounts {
		m.NoExec = true
		at := filepath.Join(dev, strings.TrimPrefix(m.Source, "/dev/"))
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		if err == nil {
			_, err = r.prepare(m, at)
		}
		if err != nil && !errors.Is(err, ErrNoSource) {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.Source, err))
		}
	}
	return errors.Join(errs...)
}

// isShared reports whether a path is one of the host's directories that containers get as
// a whole, or is in one.
func isShared(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/dev/"), "/")
	return slices.Contains(shared, first)
}
