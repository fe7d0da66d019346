// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/safefile"
)

// attachLoop returns an open loop device whose backing file is image, read-only
// and cleared by the kernel with its last user. A device that is attached to
// the same file already is used again: mounts of one device share one
// superblock and so the page cache. lock is a file of the node that keeps
// helpers that start together from attaching a device each.
//
// Files with the same device and inode numbers may differ. A file server gives the
// number of a removed file to another one, and a file can be written anew. So the
// device's name has a stamp of the file as it was.
//
// Sources: loop(4), linux/Documentation/admin-guide/devices.txt (major 7).
func attachLoop(image *os.File, lock string) (*os.File, error) {
	release, err := lockNode(lock)
	if err != nil {
		return nil, err
	}
	defer release()
	device, err := findLoop(image, unix.LO_FLAGS_READ_ONLY)
	if device != nil || err != nil {
		return device, err
	}
	return newLoop(image, unix.LO_FLAGS_READ_ONLY)
}

// ErrInUse means that a file system that only one may write to is mounted
// already.
var ErrInUse = errors.New("it is in use on this node")

// InUse tells whether a file that attachWritable takes has a device.
func InUse(image *os.File) (bool, error) {
	device, err := findLoop(image, 0)
	if device == nil {
		return false, err
	}
	return true, device.Close()
}

// attachWritable returns an open loop device for a file that can be written to
// and that no other device has.
func attachWritable(image *os.File, lock string) (*os.File, error) {
	release, err := lockNode(lock)
	if err != nil {
		return nil, err
	}
	defer release()
	device, err := findLoop(image, 0)
	if device != nil {
		return nil, errors.Join(ErrInUse, device.Close())
	}
	if err != nil {
		return nil, err
	}
	return newLoop(image, 0)
}

// lockNode takes a lock that all helpers of the node share. The file stays.
func lockNode(path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := safefile.Lock(f, unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// findLoop looks for a device that is attached to image as newLoop does it with
// mode, or returns nil.
func findLoop(image *os.File, mode uint32) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat image: %w", err)
	}
	attached, err := attachedLoops()
	if err != nil {
		return nil, err
	}
	for _, number := range attached {
		device, err := openLoop(number, mode)
		if err != nil {
			continue // detached meanwhile
		}
		// Asked after opening: an open device is not detached any more.
		if loopServes(device, image, &st, mode) {
			return device, nil
		}
		device.Close()
	}
	return nil, nil
}

// attachedLoops returns the numbers of the loop devices that are attached to
// anything: those that have the directory "loop" in sysfs. A node may have
// hundreds that are not.
func attachedLoops() ([]uint64, error) {
	const sysfs = "/sys/block"
	dir, err := os.Open(sysfs)
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	var attached []uint64
	for _, name := range names {
		digits, isLoop := strings.CutPrefix(name, "loop")
		if !isLoop || unix.Access(filepath.Join(sysfs, name, "loop"), unix.F_OK) != nil {
			continue
		}
		if number, err := strconv.ParseUint(digits, 10, 20); err == nil {
			attached = append(attached, number)
		}
	}
	return attached, nil
}

// loopServes reports whether the device reads the image, which st describes, the way
// newLoop would have set it up. One that can be written to has no stamp: its file
// changes all the time, and is on a disk of this node.
func loopServes(device, image *os.File, st *unix.Stat_t, mode uint32) bool {
	info, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	if err != nil {
		return false
	}
	const mask = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	return info.Device == uint64(st.Dev) && info.Inode == st.Ino &&
		info.Offset == 0 && info.Sizelimit == 0 && info.Flags&mask == mode|unix.LO_FLAGS_AUTOCLEAR &&
		(mode == 0 || bytes.HasPrefix(info.File_name[:], []byte(fileStamp(image, st))))
}

// fileStamp returns what tells a file from all others that have, or had, its inode
// number: its handle, which has a generation of the inode on most file systems
// (name_to_handle_at(2)), its size and its times. Nobody can set the time of the last
// change of the status.
func fileStamp(f *os.File, st *unix.Stat_t) string {
	text := fmt.Sprintf("%d %v %v", st.Size, st.Mtim, st.Ctim)
	if handle, _, err := unix.NameToHandleAt(int(f.Fd()), "", unix.AT_EMPTY_PATH); err == nil {
		text += fmt.Sprintf(" %d %x", handle.Type(), handle.Bytes())
	}
	return fmt.Sprintf("brolga %.16x ", sha256.Sum256([]byte(text)))
}

// newLoop attaches image to a free device. Mode is LO_FLAGS_READ_ONLY or 0.
func newLoop(image *os.File, mode uint32) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open loop control device (is the kernel module loop loaded?): %w", err)
	}
	defer control.Close()
	// Others, losetup for example, may take the free device first.
	for range 64 {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := openLoop(uint64(number), mode)
		if err != nil {
			return nil, fmt.Errorf("open loop device: %w", err)
		}
		err = configureLoop(device, image, mode)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach loop device %d: %w", number, err)
		}
	}
	return nil, errors.New("attach a loop device: all that were free were taken by others")
}

func configureLoop(device, image *os.File, mode uint32) error {
	config := unix.LoopConfig{Fd: uint32(image.Fd())}
	config.Info.Flags = mode | unix.LO_FLAGS_AUTOCLEAR
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		return fmt.Errorf("stat image: %w", err)
	}
	// An administrator finds the path in /sys/block/loopN/loop/backing_file, as
	// losetup does.
	copy(config.Info.File_name[:len(config.Info.File_name)-1], fileStamp(image, &st)+filepath.Base(image.Name()))
	err := unix.IoctlLoopConfigure(int(device.Fd()), &config)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) {
		return err
	}
	// Before Linux 5.8 this takes two steps.
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(image.Fd())); err != nil {
		return err
	}
	if err := unix.IoctlLoopSetStatus64(int(device.Fd()), &config.Info); err != nil {
		return errors.Join(err, unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0))
	}
	return nil
}

// openLoop opens /dev/loopN, making the node where nothing else does. The kernel
// lets a device be written to only if it was opened for that when it was attached.
func openLoop(number uint64, mode uint32) (*os.File, error) {
	const major = 7
	how := os.O_RDONLY
	if mode&unix.LO_FLAGS_READ_ONLY == 0 {
		how = os.O_RDWR
	}
	path := fmt.Sprintf("/dev/loop%d", number)
	device, err := os.OpenFile(path, how, 0)
	if errors.Is(err, os.ErrNotExist) {
		err = unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(major, uint32(number))))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("make %s: %w", path, err)
		}
		device, err = os.OpenFile(path, how, 0)
	}
	return device, err
}
