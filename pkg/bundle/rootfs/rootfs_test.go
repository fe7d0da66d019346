// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/mountns"
)

// ada is the user that containers are made for.
var ada = identity.User{UID: 4711, GID: 4711, Name: "ada", Home: "/home/ada"}

// entry is a file of an image or a host: a directory where path ends with "/",
// a symbolic link where link is set.
type entry struct {
	path  string
	mode  fs.FileMode
	link  string
	owner int
}

// imageTree is what the images of these tests hold.
var imageTree = []entry{
	{path: "etc/", mode: 0o755},
	{path: "etc/passwd", mode: 0o644},
	{path: "etc/resolv.conf", link: "../run/resolv.conf"},
	{path: "target/", mode: 0o755},
	{path: "target/old", mode: 0o644},
	{path: "file", mode: 0o644},
	{path: "absolute", link: "/target"},
	{path: "climbing", link: "../../../../../../../../target"},
	{path: "out", link: "/../../../../../../../../../tmp"},
	{path: "self", link: "/"},
	{path: "dangling", link: "/nowhere"},
	{path: "loop", link: "loop"},
	{path: "suid", mode: fs.ModeSetuid | 0o755},
	{path: "closed/", mode: 0o700},
	{path: "closed/inner/", mode: 0o700},
	{path: "dev/", mode: 0o755},
	{path: "dev/from-image", mode: 0o644},
}

// lay makes the entries below dir.
func lay(t *testing.T, dir string, entries []entry) {
	t.Helper()
	for _, e := range entries {
		path := filepath.Join(dir, e.path)
		var err error
		switch {
		case e.link != "":
			err = os.Symlink(e.link, path)
		case strings.HasSuffix(e.path, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, []byte(e.path), 0o600)
		}
		if err == nil {
			err = os.Lchown(path, e.owner, e.owner)
		}
		if err == nil && e.link == "" {
			err = os.Chmod(path, e.mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts file systems")
	}
}

// makeImage makes a squashfs and returns it open.
func makeImage(t *testing.T, entries []entry) *os.File {
	t.Helper()
	needRoot(t)
	tree := t.TempDir()
	lay(t, tree, entries)
	return squash(t, tree)
}

// squash makes a squashfs of a directory and returns it open.
func squash(t *testing.T, tree string) *os.File {
	t.Helper()
	program, err := exec.LookPath("mksquashfs")
	if err != nil {
		t.Skip("needs mksquashfs")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("needs loop devices")
	}
	path := filepath.Join(t.TempDir(), "image.squashfs")
	if err := os.Chmod(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, tree, path, "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// makeHost makes a directory that all users can reach.
func makeHost(t *testing.T, entries []entry) string {
	t.Helper()
	needRoot(t)
	dir, err := os.MkdirTemp("", "rootfs-test")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	lay(t, dir, entries)
	return dir
}

// inRootfs builds a root file system in a namespace of its own and calls f
// there. f must not end the test: it runs on another goroutine.
func inRootfs(t *testing.T, image *os.File, f func(r *Rootfs) error) {
	t.Helper()
	if err := buildAndRun(image, t.TempDir(), filepath.Join(filepath.Dir(image.Name()), "lock"), f); err != nil {
		t.Error(err)
	}
}

func buildAndRun(image *os.File, dir, lock string, f func(r *Rootfs) error) error {
	return mountns.Do(nil, func() error {
		r, err := Build(Params{Dir: dir, Lock: lock, Image: image, TmpfsSize: "16m", User: ada})
		if err != nil {
			return err
		}
		return errors.Join(f(r), r.Close())
	})
}

// mountInfo is a line of /proc/self/mountinfo (proc(5)).
type mountInfo struct{ options, optional, fsType string }

func (m mountInfo) has(option string) bool {
	return slices.Contains(strings.Split(m.options, ","), option)
}

// infoOf returns the mount at path in the calling thread's namespace; where
// several are on each other, the uppermost.
func infoOf(path string) (m mountInfo, err error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return m, err
	}
	err = fmt.Errorf("nothing is mounted at %s:\n%s", path, text)
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); fields[4] == path {
			m = mountInfo{fields[5], strings.Join(fields[6:], " "), strings.Fields(after)[0]}
			err = nil
		}
	}
	return m, err
}

// expectFlags tells what of the mount's options is not as wanted: all of want,
// separated by commas, and none of those of the list that are not wanted.
func expectFlags(path, want string) error {
	m, err := infoOf(path)
	if err != nil {
		return err
	}
	wanted := strings.Split(want, ",")
	for _, option := range []string{"ro", "rw", "nosuid", "nodev", "noexec"} {
		if m.has(option) != slices.Contains(wanted, option) {
			return fmt.Errorf("%s is mounted %s; want %s of the flags", path, m.options, want)
		}
	}
	return nil
}

func expectContent(path, want string) error {
	got, err := os.ReadFile(path)
	if err == nil && string(got) != want {
		err = fmt.Errorf("%s holds %q; want %q", path, got, want)
	}
	return err
}

func TestBuild(t *testing.T) {
	image := makeImage(t, imageTree)
	var where string
	inRootfs(t, image, func(r *Rootfs) error {
		where = r.Path
		lower := filepath.Join(filepath.Dir(r.Path), "lower")
		return errors.Join(
			expectContent(filepath.Join(r.Path, "file"), "file"),
			os.WriteFile(filepath.Join(r.Path, "file"), []byte("changed"), 0o600),
			os.WriteFile(filepath.Join(r.Path, "new"), []byte("new"), 0o600),
			os.Remove(filepath.Join(r.Path, "target/old")),
			expectContent(filepath.Join(r.Path, "file"), "changed"),
			expectContent(filepath.Join(lower, "file"), "file"),
			expectContent(filepath.Join(lower, "target/old"), "target/old"),
			expectFlags(r.Path, "rw,nosuid,nodev"),
			expectFlags(lower, "ro,nosuid,nodev"),
			expectFlags(filepath.Dir(r.Path), "rw,nosuid,nodev"),
		)
	})
	if _, err := os.Stat(where); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat %s = %v; want nothing outside the namespace", where, err)
	}
	// Changes are the step's: the next one sees the image.
	inRootfs(t, image, func(r *Rootfs) error {
		return expectContent(filepath.Join(r.Path, "file"), "file")
	})
}

func TestBuildSize(t *testing.T) {
	inRootfs(t, makeImage(t, imageTree), func(r *Rootfs) error {
		err := os.WriteFile(filepath.Join(r.Path, "large"), make([]byte, 20<<20), 0o600)
		if !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("write 20 MiB: %v; want no space beyond 16 MiB", err)
		}
		return nil
	})
}

func TestBuildErrors(t *testing.T) {
	image := makeImage(t, imageTree)
	noImage := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(noImage, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	bad, err := os.Open(noImage)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	for _, tt := range []struct {
		name string
		p    Params
		err  string
	}{
		{"no squashfs", Params{Image: bad, TmpfsSize: "1m"}, "mount image " + noImage + ": invalid argument"},
		{"size", Params{Image: image, TmpfsSize: "x"}, "mount tmpfs (size=x): "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.p.Dir, tt.p.Lock = t.TempDir(), filepath.Join(t.TempDir(), "lock")
			err := mountns.Do(nil, func() error { _, err := Build(tt.p); return err })
			if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("Build = %v; want %q", err, tt.err)
			}
		})
	}
	expectNoLoop(t, noImage)
}

// loopsOf returns the loop devices that are attached to the file.
func loopsOf(t *testing.T, path string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var devices []string
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(text)) == path {
			devices = append(devices, f)
		}
	}
	return devices
}

// expectNoLoop waits a little: the kernel detaches after the last unmount.
func expectNoLoop(t *testing.T, path string) {
	t.Helper()
	for range 100 {
		if len(loopsOf(t, path)) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%s is still attached to %v", path, loopsOf(t, path))
}

// TestLoopDeviceIsShared checks that steps that start together share a device,
// and so the page cache, and that it goes with the last of them.
func TestLoopDeviceIsShared(t *testing.T) {
	image, other := makeImage(t, imageTree), makeImage(t, imageTree)
	lock := filepath.Join(t.TempDir(), "lock")
	const steps = 4
	ready, end, done := make(chan bool), make(chan bool), make(chan error)
	for i := range steps + 1 {
		file, dir := image, t.TempDir()
		if i == steps {
			file = other
		}
		go func() {
			err := buildAndRun(file, dir, lock, func(r *Rootfs) error {
				ready <- true
				<-end
				return expectContent(filepath.Join(r.Path, "file"), "file")
			})
			if err != nil {
				select { // do not leave the others waiting
				case ready <- false:
				case <-end:
				}
			}
			done <- err
		}()
	}
	for range steps + 1 {
		<-ready
	}
	if n, m := len(loopsOf(t, image.Name())), len(loopsOf(t, other.Name())); n != 1 || m != 1 {
		t.Errorf("%d steps use %d loop devices, another image %d; want one for each image", steps, n, m)
	}
	close(end)
	for range steps + 1 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	expectNoLoop(t, image.Name())
	expectNoLoop(t, other.Name())
}

// TestAttachLoopTogether checks that helpers that start at the same moment do
// not attach a device each.
func TestAttachLoopTogether(t *testing.T) {
	image := makeImage(t, imageTree)
	lock := filepath.Join(t.TempDir(), "lock")
	for range 5 {
		const helpers = 16
		start, devices := make(chan bool), make(chan *os.File, helpers)
		for range helpers {
			go func() {
				<-start
				device, err := attachLoop(image, lock)
				if err != nil {
					t.Error(err)
				}
				devices <- device
			}()
		}
		close(start)
		names, opened := map[string]bool{}, []*os.File{}
		for range helpers {
			if device := <-devices; device != nil {
				names[device.Name()] = true
				opened = append(opened, device)
			}
		}
		for _, device := range opened {
			device.Close()
		}
		expectNoLoop(t, image.Name())
		if len(names) != 1 {
			t.Errorf("%d helpers use %d devices; want one", helpers, len(names))
		}
	}
}

// TestAttachLoopAnew checks that a file that was written anew under the same inode
// number does not get the device of the former one, whose content the kernel knows.
func TestAttachLoopAnew(t *testing.T) {
	image := makeImage(t, imageTree)
	lock := filepath.Join(t.TempDir(), "lock")
	attach := func() *os.File {
		device, err := attachLoop(image, lock)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { device.Close() })
		return device
	}
	first := attach()
	if second := attach(); second.Name() != first.Name() {
		t.Errorf("a second step uses %s; want %s", second.Name(), first.Name())
	}
	content, err := os.ReadFile(image.Name())
	if err == nil {
		time.Sleep(20 * time.Millisecond) // the clock of the file system has ticked
		err = os.WriteFile(image.Name(), content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if again := attach(); again.Name() == first.Name() {
		t.Errorf("a file that was written anew uses %s, the device of the former one", again.Name())
	}
}

func TestMount(t *testing.T) {
	image := makeImage(t, imageTree)
	host := makeHost(t, []entry{
		{path: "dir/", mode: 0o755},
		{path: "dir/content", mode: 0o644},
		{path: "file", mode: 0o644},
		{path: "private/", mode: 0o700, owner: int(ada.UID)},
		{path: "private/content", mode: 0o600, owner: int(ada.UID)},
		{path: "closed/", mode: 0o700},
		{path: "closed/dir/", mode: 0o755},
		{path: "link", link: "dir"},
	})
	const absent = "-"
	for _, tt := range []struct {
		name string
		m    Mount
		at   string // where the mount is to be, in the root file system
		err  string // substring of the error; empty means success
	}{
		{"directory", Mount{Source: "dir", Target: "/target"}, "/target", ""},
		{"file", Mount{Source: "file", Target: "/etc/passwd"}, "/etc/passwd", ""},
		{"missing directory", Mount{Source: "dir", Target: "/a/b/c"}, "/a/b/c", ""},
		{"missing file", Mount{Source: "file", Target: "/a/b/file"}, "/a/b/file", ""},
		{"absolute link", Mount{Source: "dir", Target: "/absolute"}, "/target", ""},
		{"below a link", Mount{Source: "dir", Target: "/absolute/new"}, "/target/new", ""},
		{"climbing link", Mount{Source: "dir", Target: "/climbing"}, "/target", ""},
		{"link out of the root", Mount{Source: "dir", Target: "/out/x"}, "/tmp/x", "make mount point"},
		{"climbing target", Mount{Source: "dir", Target: "/target/../../../target"}, "/target", ""},
		{"directory closed to the user", Mount{Source: "dir", Target: "/closed/inner"}, "/closed/inner", ""},
		{"source through a link", Mount{Source: "link", Target: "/target", AsUser: true}, "/target", ""},
		{"as the user", Mount{Source: "private", Target: "/target", AsUser: true}, "/target", ""},
		{"as root", Mount{Source: "closed/dir", Target: "/target"}, "/target", ""},

		{"not the user's", Mount{Source: "closed/dir", Target: "/target", AsUser: true}, absent, "closed/dir: user ada may not reach it: permission denied"},
		{"no source", Mount{Source: "missing", Target: "/target", AsUser: true}, absent, "missing: no such file or directory on this node"},
		{"directory at a file", Mount{Source: "dir", Target: "/file"}, absent, "at /file: the destination is a file, the source a directory"},
		{"file at a directory", Mount{Source: "file", Target: "/target"}, absent, "at /target: the destination is a directory, the source a file"},
		{"below a file", Mount{Source: "dir", Target: "/file/x"}, absent, "resolve destination: "},
		{"dangling link", Mount{Source: "dir", Target: "/dangling"}, absent, "make mount point dangling: it is a link to a place that the container lacks"},
		{"link to itself", Mount{Source: "dir", Target: "/loop"}, absent, "resolve destination: "},
		{"link to the root", Mount{Source: "dir", Target: "/self"}, absent, "that is the container's root directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inRootfs(t, image, func(r *Rootfs) error {
				m := tt.m
				m.Source = filepath.Join(host, m.Source)
				err := r.Mount(m)
				if tt.err != "" {
					if err == nil || !strings.Contains(err.Error(), tt.err) {
						return fmt.Errorf("Mount = %v; want an error with %q", err, tt.err)
					}
					if (tt.name == "no source") != errors.Is(err, ErrNoSource) {
						return fmt.Errorf("Mount = %v; want ErrNoSource where the source is missing", err)
					}
					return nil
				}
				if err != nil {
					return err
				}
				return expectFlags(r.Path+tt.at, "rw,nosuid,nodev")
			})
		})
	}
	if _, err := os.Stat("/nowhere"); err == nil {
		t.Error("a link of the image made something on the host")
	}
}

// TestMountDoesNotFollowTheHelper checks that a user cannot name what the
// helper has open.
func TestMountDoesNotFollowTheHelper(t *testing.T) {
	image := makeImage(t, imageTree)
	secret := makeHost(t, []entry{{path: "secret/", mode: 0o700}})
	inRootfs(t, image, func(r *Rootfs) error {
		open, err := os.Open(filepath.Join(secret, "secret"))
		if err != nil {
			return err
		}
		defer open.Close()
		for _, source := range []string{
			fmt.Sprintf("/proc/self/fd/%d", open.Fd()),
			fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), open.Fd()),
			"/proc/1/root", "/proc/self/root/etc",
		} {
			if err := r.Mount(Mount{Source: source, Target: "/target", AsUser: true}); err == nil {
				return fmt.Errorf("Mount of %s succeeds; want it refused", source)
			}
		}
		return nil
	})
}

// TestMountNothingOfTheContainer checks that a source that nobody has opened before
// Build, one of a hook, cannot be a file of the image or of the bundle.
func TestMountNothingOfTheContainer(t *testing.T) {
	image := makeImage(t, imageTree)
	inRootfs(t, image, func(r *Rootfs) error {
		dir := filepath.Dir(r.Path)
		link := filepath.Join(filepath.Dir(dir), "link")
		if err := os.Symlink(dir, link); err != nil {
			return err
		}
		for _, source := range []string{dir, dir + "/lower/file", dir + "/rootfs/file", dir + "/files", link + "/lower"} {
			if err := r.Mount(Mount{Source: source, Target: "/target/x"}); !errors.Is(err, ErrNoSource) {
				return fmt.Errorf("Mount of %s = %v; want none there", source, err)
			}
		}
		return nil
	})
}

// TestMountDevice checks that a user can open a device in the container only
// where the host lets it be opened.
func TestMountDevice(t *testing.T) {
	image := makeImage(t, imageTree)
	inRootfs(t, image, func(r *Rootfs) error {
		elsewhere := t.TempDir()
		device := filepath.Join(elsewhere, "null")
		if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			return err
		}
		for source, want := range map[string]string{
			"/dev/null": "rw,nosuid", "/dev": "rw,nosuid,nodev", device: "rw,nosuid,nodev",
		} {
			target := "/device" + source
			if err := r.Mount(Mount{Source: source, Target: target, Device: true}); err != nil {
				return err
			}
			info, err := infoOf(r.Path + target)
			if err != nil {
				return err
			}
			if got := info.has("nodev"); got != strings.Contains(want, "nodev") {
				return fmt.Errorf("%s: nodev %v; want %s", source, got, want)
			}
		}
		return nil
	})
}

func TestMountTmpfs(t *testing.T) {
	image := makeImage(t, imageTree)
	inRootfs(t, image, func(r *Rootfs) error {
		if err := r.MountTmpfs("/new/place", []string{"size=64k", "mode=0700", "noexec", "nosuid", "nodev"}); err != nil {
			return err
		}
		path := r.Path + "/new/place"
		if err := expectFlags(path, "rw,nosuid,nodev,noexec"); err != nil {
			return err
		}
		var st unix.Stat_t
		var fs unix.Statfs_t
		if err := errors.Join(unix.Stat(path, &st), unix.Statfs(path, &fs)); err != nil {
			return err
		}
		if st.Uid != ada.UID || st.Gid != ada.GID || st.Mode&0o7777 != 0o700 || fs.Blocks*uint64(fs.Bsize) != 64<<10 {
			return fmt.Errorf("owner %d:%d, mode %o, %d blocks", st.Uid, st.Gid, st.Mode, fs.Blocks)
		}
		if err := r.MountTmpfs("/etc/passwd", nil); err == nil || !strings.Contains(err.Error(), "mount tmpfs at /etc/passwd: the destination is a file") {
			return fmt.Errorf("MountTmpfs over a file = %v; want an error", err)
		}
		return nil
	})
}

func TestMountFlags(t *testing.T) {
	image := makeImage(t, imageTree)
	for _, tt := range []struct {
		m          Mount
		want       string
		sub        string // flags of what is mounted below; empty: it is not there
		slave      bool
		hostOption uintptr // of the source
	}{
		{m: Mount{}, want: "rw,nosuid,nodev", sub: "rw,nosuid,nodev", slave: true},
		{m: Mount{ReadOnly: true}, want: "ro,nosuid,nodev", sub: "ro,nosuid,nodev", slave: true},
		{m: Mount{NoExec: true}, want: "rw,nosuid,nodev,noexec", sub: "rw,nosuid,nodev,noexec", slave: true},
		{m: Mount{Devices: true}, want: "rw,nosuid", sub: "rw,nosuid", slave: true},
		{m: Mount{Private: true, ReadOnly: true, NoExec: true}, want: "ro,nosuid,nodev,noexec", sub: "ro,nosuid,nodev,noexec"},
		{m: Mount{}, want: "ro,nosuid,nodev,noexec", sub: "rw,nosuid,nodev", slave: true, hostOption: unix.MS_RDONLY | unix.MS_NOEXEC},
	} {
		t.Run(fmt.Sprintf("%+v %d", tt.m, tt.hostOption), func(t *testing.T) {
			inRootfs(t, image, func(r *Rootfs) error {
				source, err := mountTwo(t.TempDir(), tt.hostOption)
				if err != nil {
					return err
				}
				tt.m.Source, tt.m.Target = source, "/target"
				if err := r.Mount(tt.m); err != nil {
					return err
				}
				at := r.Path + "/target"
				info, err := infoOf(at)
				if err == nil && strings.Contains(info.optional, "master:") != tt.slave {
					err = fmt.Errorf("propagation is %q; want slave %v", info.optional, tt.slave)
				}
				if _, subErr := infoOf(at + "/sub"); tt.sub == "" && subErr == nil {
					err = errors.Join(err, errors.New("what is mounted below is there, too"))
				}
				if tt.sub != "" {
					err = errors.Join(err, expectFlags(at+"/sub", tt.sub))
				}
				return errors.Join(err, expectFlags(at, tt.want))
			})
		})
	}
}

// mountTwo mounts one file system on dir, with the given flags and shared as on
// most hosts, and another below it.
func mountTwo(dir string, flags uintptr) (string, error) {
	sub := filepath.Join(dir, "sub")
	return dir, errors.Join(
		unix.Mount("test", dir, "tmpfs", 0, ""),
		unix.Mount("", dir, "", unix.MS_SHARED, ""),
		os.Mkdir(sub, 0o755),
		unix.Mount("test", sub, "tmpfs", 0, ""),
		unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""),
	)
}

// TestSetAttributesByRemount checks the way of older kernels: flags that the
// host has set must not get lost.
func TestSetAttributesByRemount(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		host uintptr
		attr unix.MountAttr
		want string
	}{
		{0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}, "rw,nosuid,nodev"},
		{0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC}, "ro,noexec"},
		{unix.MS_RDONLY | unix.MS_NOEXEC, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}, "ro,nosuid,noexec"},
	} {
		tt.attr.Propagation = unix.MS_PRIVATE
		err := mountns.Do(nil, func() error {
			dir, err := mountTwo(t.TempDir(), tt.host)
			return errors.Join(err, setAttributesByRemount(dir, tt.attr), expectFlags(dir, tt.want))
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestRootMakesNothingOnTheHost checks that mount points inside what is mounted
// from the host are made by the user or not at all.
func TestRootMakesNothingOnTheHost(t *testing.T) {
	image := makeImage(t, imageTree)
	host := makeHost(t, []entry{
		{path: "theirs/", mode: 0o755, owner: int(ada.UID)},
		{path: "roots/", mode: 0o755},
		{path: "roots/closed/", mode: 0o700},
		{path: "source/", mode: 0o755},
	})
	mount := func(r *Rootfs, source, target string) error {
		return r.Mount(Mount{Source: filepath.Join(host, source), Target: target, AsUser: true})
	}
	inRootfs(t, image, func(r *Rootfs) error {
		if err := errors.Join(mount(r, "theirs", "/theirs"), mount(r, "roots", "/roots")); err != nil {
			return err
		}
		for _, target := range []string{"/roots/new", "/roots/a/b", "/roots/closed/new"} {
			if err := mount(r, "source", target); !errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("mount at %s: %v; want it refused", target, err)
			}
		}
		return mount(r, "source", "/theirs/a/b")
	})
	if entries, err := os.ReadDir(filepath.Join(host, "roots")); err != nil || len(entries) != 1 {
		t.Errorf("root's directory holds %v, %v; want nothing new", entries, err)
	}
	var st unix.Stat_t
	for _, path := range []string{"theirs/a", "theirs/a/b"} {
		if err := unix.Lstat(filepath.Join(host, path), &st); err != nil || st.Uid != ada.UID || st.Gid != ada.GID {
			t.Errorf("%s belongs to %d:%d, %v; want it to be the user's", path, st.Uid, st.Gid, err)
		}
	}
}

func TestAddFile(t *testing.T) {
	inRootfs(t, makeImage(t, imageTree), func(r *Rootfs) error {
		var errs []error
		for _, path := range []string{"/etc/passwd", "/etc/hosts", "/new/dir/file"} {
			at := r.Path + path
			errs = append(errs, r.AddFile(path, []byte("new")), expectContent(at, "new"), expectFlags(at, "ro,nosuid,nodev,noexec"))
			if err := os.WriteFile(at, nil, 0o600); !errors.Is(err, unix.EROFS) {
				errs = append(errs, fmt.Errorf("write %s: %v; want it refused", path, err))
			}
		}
		return errors.Join(errs...)
	})
}

func TestMountDev(t *testing.T) {
	inRootfs(t, makeImage(t, imageTree), func(r *Rootfs) error {
		if err := r.MountDev([]string{"/dev/loop-contro?", "/dev/no-such-device*"}, false); err != nil {
			return err
		}
		dev := r.Path + "/dev/"
		errs := []error{expectFlags(r.Path+"/dev", "rw,nosuid,noexec"), expectFlags(dev+"loop-control", "rw,nosuid,noexec")}
		for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "ptmx"} {
			st, err := os.Lstat(dev + name)
			if err == nil && (st.Mode()&fs.ModeCharDevice == 0 || st.Mode().Perm() != 0o666) {
				err = fmt.Errorf("%s is %v; want a device for all", name, st.Mode())
			}
			errs = append(errs, err)
		}
		errs = append(errs, os.WriteFile(dev+"null", []byte("x"), 0))
		if target, err := os.Readlink(dev + "stdin"); err != nil || target != "/proc/self/fd/0" {
			errs = append(errs, fmt.Errorf("stdin leads to %q, %v", target, err))
		}
		entries, err := os.ReadDir(dev)
		for _, e := range entries {
			if !slices.Contains([]string{
				"null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "stdout", "stderr",
				"pts", "shm", "mqueue", "loop-control",
			}, e.Name()) {
				errs = append(errs, fmt.Errorf("/dev/%s is there", e.Name()))
			}
		}
		return errors.Join(append(errs, err)...)
	})
}

// TestSystemDirectories checks that the directories in which root mounts are there, and
// that an image with anything else in their places is refused.
func TestSystemDirectories(t *testing.T) {
	inRootfs(t, makeImage(t, imageTree), func(r *Rootfs) error {
		if err := r.MakeTmp(); err != nil {
			return err
		}
		var errs []error
		for name, want := range map[string]fs.FileMode{
			"proc": fs.ModeDir | 0o755, "sys": fs.ModeDir | 0o755, "dev": fs.ModeDir | 0o755, "tmp": fs.ModeDir | fs.ModeSticky | 0o777,
		} {
			if st, err := os.Lstat(filepath.Join(r.Path, name)); err != nil || st.Mode() != want {
				errs = append(errs, fmt.Errorf("/%s: %v, %v; want mode %v", name, st, err, want))
			}
		}
		return errors.Join(errs...)
	})
	for _, name := range []string{"proc", "sys", "dev"} {
		for _, e := range []entry{{path: name, link: "/target"}, {path: name, mode: 0o644}} {
			t.Run(fmt.Sprintf("%s %s", name, e.link), func(t *testing.T) {
				image := makeImage(t, []entry{e})
				want := "the image's /" + name + " is not a directory"
				err := buildAndRun(image, t.TempDir(), filepath.Join(t.TempDir(), "lock"), func(*Rootfs) error { return nil })
				if err == nil || err.Error() != want {
					t.Errorf("Build = %v; want %q", err, want)
				}
			})
		}
	}
}

func TestMakeDirectory(t *testing.T) {
	host := makeHost(t, []entry{{path: "dir/", mode: 0o755}})
	inRootfs(t, makeImage(t, imageTree), func(r *Rootfs) error {
		err := errors.Join(
			r.MakeDirectory("/a/b"), r.MakeDirectory("/a/b/../b/c"), r.MakeDirectory("/target"),
			r.Mount(Mount{Source: filepath.Join(host, "dir"), Target: "/host"}),
		)
		if _, statErr := os.Stat(r.Path + "/a/b/c"); statErr != nil {
			err = errors.Join(err, statErr)
		}
		if hostErr := r.MakeDirectory("/host/new"); !errors.Is(hostErr, fs.ErrPermission) {
			err = errors.Join(err, fmt.Errorf("MakeDirectory on the host = %v; want it refused", hostErr))
		}
		return err
	})
}

func TestMakeReadOnly(t *testing.T) {
	host := makeHost(t, []entry{{path: "dir/", mode: 0o755}})
	inRootfs(t, makeImage(t, imageTree), func(r *Rootfs) error {
		err := errors.Join(
			r.Mount(Mount{Source: filepath.Join(host, "dir"), Target: "/target"}),
			r.MakeReadOnly(),
			expectFlags(r.Path, "ro,nosuid,nodev"),
			expectFlags(r.Path+"/target", "rw,nosuid,nodev"),
			os.WriteFile(r.Path+"/target/new", nil, 0o600),
		)
		if writeErr := os.WriteFile(r.Path+"/new", nil, 0o600); !errors.Is(writeErr, unix.EROFS) {
			err = errors.Join(err, fmt.Errorf("write: %v; want it refused", writeErr))
		}
		return err
	})
}

// TestMakeMountPoint checks that a mount point is made anew or not at all: a file system
// that gives a name twice would else have root write through the link that came first.
func TestMakeMountPoint(t *testing.T) {
	dir := t.TempDir()
	theirs, link := filepath.Join(dir, "theirs"), filepath.Join(dir, "link")
	err := errors.Join(os.WriteFile(theirs, []byte("kept"), 0o600), os.Symlink(theirs, link),
		os.Symlink(filepath.Join(dir, "new"), filepath.Join(dir, "dangling")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"theirs", "link", "dangling"} {
		for _, isDir := range []bool{false, true} {
			if err := makeMountPoint(filepath.Join(dir, name), isDir); !errors.Is(err, fs.ErrExist) {
				t.Errorf("make %s: %v; want it refused", name, err)
			}
		}
	}
	if text, err := os.ReadFile(theirs); err != nil || string(text) != "kept" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "new")); err == nil {
		t.Error("a file was made at the end of a link")
	}
}

// TestDevicesInSharedDirectories checks that a pattern makes nothing in the directories
// of /dev that are the host's.
func TestDevicesInSharedDirectories(t *testing.T) {
	theirs, err := os.CreateTemp("/dev/shm", "brolga-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(theirs.Name())
	_, err = theirs.WriteString("kept")
	if err := errors.Join(err, theirs.Close()); err != nil {
		t.Fatal(err)
	}
	inRootfs(t, makeImage(t, imageTree), func(r *Rootfs) error { return r.MountDev([]string{"/dev/shm/brolga-test-*"}, false) })
	if text, err := os.ReadFile(theirs.Name()); err != nil || string(text) != "kept" {
		t.Errorf("the file holds %q, %v", text, err)
	}
}
