// SPDX-License-Identifier: Apache-2.0

package named

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/expire"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/request"
)

var ada = identity.User{UID: 4711, GID: 4711, Name: "ada"}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func site(t *testing.T) config.Named {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: acts as a user")
	}
	before := config.RunDir
	config.RunDir = filepath.Join(t.TempDir(), "run")
	t.Cleanup(func() { config.RunDir = before })
	s := config.Default().Named
	s.Directory, s.Size = filepath.Join(t.TempDir(), "named"), 16<<20
	return s
}

func open(t *testing.T, s config.Named, want request.Named) *Container {
	t.Helper()
	c, err := Open(s, want, ada)
	must(t, err)
	t.Cleanup(func() { _ = c.Release() })
	return c
}

func of(job, restart uint32) request.Named {
	return request.Named{Name: "x", Node: "n1", Job: job, Restart: restart}
}

// make makes the container and releases it.
func makeOne(t *testing.T, s config.Named, want request.Named) *Container {
	t.Helper()
	c := open(t, s, want)
	must(t, c.Make(t.Context(), State{Image: "image"}))
	must(t, c.Release())
	return c
}

func exists(t *testing.T, s config.Named, want request.Named) bool {
	t.Helper()
	c := open(t, s, want)
	defer c.Release()
	_, ok, err := c.State()
	must(t, err)
	return ok
}

func TestContainer(t *testing.T) {
	s := site(t)
	makeOne(t, s, of(5, 1))
	c := open(t, s, of(5, 1))
	state, ok, err := c.State()
	if err != nil || !ok || state.Image != "image" {
		t.Errorf("State = %+v, %t, %v; want what was made", state, ok, err)
	}
	f, err := c.File()
	must(t, err)
	defer f.Close()
	st, err := f.Stat()
	must(t, err)
	if sys := st.Sys().(*syscall.Stat_t); st.Mode() != 0o600 || st.Size() != 16<<20 || sys.Uid != 0 {
		t.Errorf("the file is %v", st)
	}
	must(t, c.Release())
	for _, tt := range []struct {
		name string
		want request.Named
		ok   bool
	}{
		{"the same", of(5, 1), true},
		{"another job", of(6, 1), false},
		{"the user's scope", of(0, 0), false},
		{"another node", request.Named{Name: "x", Node: "n2", Job: 5, Restart: 1}, false},
		{"a later run of the job", of(5, 2), false},
		{"the first run again", of(5, 1), false}, // the later one has removed it
	} {
		if got := exists(t, s, tt.want); got != tt.ok {
			t.Errorf("%s: exists = %t; want %t", tt.name, got, tt.ok)
		}
	}
}

// TestOpenWaits checks that a container is one step's at a time, also where its
// lock is removed meanwhile.
func TestOpenWaits(t *testing.T) {
	s := site(t)
	first := open(t, s, of(5, 0))
	opened := make(chan *Container)
	go func() {
		c, err := Open(s, of(5, 0), ada)
		if err != nil {
			t.Error(err)
		}
		opened <- c
	}()
	select {
	case <-opened:
		t.Fatal("two have the container")
	case <-time.After(50 * time.Millisecond):
	}
	must(t, os.Remove(first.path+suffixLock))
	must(t, first.Release())
	second := <-opened
	third, err := lockFile(second.path+suffixLock, unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("lock = %v, %v; want it taken", third, err)
	}
	must(t, second.Release())
}

func TestOpenRefuses(t *testing.T) {
	s := site(t)
	for _, node := range []string{"", "..", "a/b"} {
		if _, err := Open(s, request.Named{Name: "x", Node: node}, ada); err == nil {
			t.Errorf("node %q is accepted", node)
		}
	}
	must(t, os.MkdirAll(filepath.Join(s.Directory, "n1"), 0o777))
	must(t, os.Chmod(filepath.Join(s.Directory, "n1"), 0o777))
	if _, err := Open(s, of(5, 0), ada); err == nil || !strings.Contains(err.Error(), "someone other than root could change it") {
		t.Errorf("Open in a directory that others can change = %v; want an error", err)
	}
}

// TestListOfTheUser checks that nothing that the user puts into the directory of
// names leads anywhere.
func TestListOfTheUser(t *testing.T) {
	s := site(t)
	for _, tt := range []struct {
		name string
		lay  func(path string) error
	}{
		{"link", func(p string) error { return os.Symlink("/etc/passwd", p) }},
		{"dangling link", func(p string) error { return os.Symlink(filepath.Join(s.Directory, "n1", "made"), p) }},
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o666) }},
		{"directory", func(p string) error { return os.Mkdir(p, 0o777) }},
	} {
		c := open(t, s, of(5, 0))
		must(t, os.RemoveAll(filepath.Join(filepath.Dir(c.path), list, "5:x")))
		must(t, tt.lay(filepath.Join(filepath.Dir(c.path), list, "5:x")))
		if err := c.Make(t.Context(), State{}); err == nil {
			t.Errorf("%s: Make = nil; want an error", tt.name)
		}
		must(t, c.Release())
	}
	if _, err := os.Lstat(filepath.Join(s.Directory, "n1", "made")); err == nil {
		t.Error("a file was made through a link")
	}
}

// TestCollectWithATrickedList checks that nothing in the user's list keeps what is left
// of a container, or of another, from being removed.
func TestCollectWithATrickedList(t *testing.T) {
	s := site(t)
	for _, tt := range []struct {
		name string
		lay  func(path string) error
		note string // that it leaves
	}{
		{"link", func(p string) error { return os.Symlink("/etc/passwd", p) }, ""},
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o666) }, ""},
		{"empty directory", func(p string) error { return os.Mkdir(p, 0) }, ""},
		{"directory", func(p string) error { return os.MkdirAll(filepath.Join(p, "sub"), 0o777) }, "remove 5:x from the list of containers: directory not empty"},
		{"mount", func(p string) error { return errors.Join(os.Mkdir(p, 0o777), unix.Mount("x", p, "tmpfs", 0, "")) }, "remove 5:x from the list of containers: device or resource busy"},
		{"mount over the list", func(p string) error { return unix.Mount("x", filepath.Dir(p), "tmpfs", 0, "") }, "invalid cross-device link"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := makeOne(t, s, of(5, 0))
			makeOne(t, s, of(6, 0))
			listed := filepath.Join(filepath.Dir(c.path), list, "5:x")
			must(t, os.Remove(listed))
			must(t, tt.lay(listed))
			t.Cleanup(func() {
				_ = unix.Unmount(listed, unix.MNT_DETACH)
				_ = unix.Unmount(filepath.Dir(listed), unix.MNT_DETACH)
				must(t, os.RemoveAll(filepath.Dir(c.path)))
			})
			var notes []string
			for _, job := range []uint32{5, 6} {
				must(t, Collect(s, "n1", Limits{Ended: job, MaxSize: -1, Note: func(line string) { notes = append(notes, line) }}, nil))
			}
			left, err := filepath.Glob(filepath.Join(filepath.Dir(c.path), "*:*"))
			if err != nil || len(left) != 0 {
				t.Errorf("left are %q, %v", left, err)
			}
			if (len(notes) == 0) != (tt.note == "") || len(notes) > 2 || len(notes) > 0 && !strings.Contains(notes[0], tt.note) {
				t.Errorf("noted are %q; want %q", notes, tt.note)
			}
		})
	}
}

// TestReserveIsFair checks that a user who makes containers without end takes a share of
// the disk, and that the next user's first one has room.
func TestReserveIsFair(t *testing.T) {
	s := site(t)
	s.Size = 8 << 40
	disk := t.TempDir()
	must(t, unix.Mount("x", disk, "tmpfs", 0, "size=400m"))
	t.Cleanup(func() { must(t, unix.Unmount(disk, 0)) })
	s.Directory = filepath.Join(disk, "named")
	fill := func(user identity.User, name string) (sizes []int64, err error) {
		for i := range 100 {
			c, err := Open(s, request.Named{Name: name + strconv.Itoa(i), Node: "n1", Job: 5}, user)
			must(t, err)
			err = c.Make(t.Context(), State{})
			info, statErr := os.Stat(c.path + suffixData)
			must(t, c.Release())
			if err != nil {
				return sizes, err
			}
			must(t, statErr)
			sizes = append(sizes, info.Size()>>20)
		}
		return sizes, nil
	}
	// 384 MiB without what is spare: a half of these, then of what ada leaves.
	first, err := fill(ada, "x")
	if err == nil || !strings.Contains(err.Error(), "this cluster allows 50 % of what other users leave") || len(first) != 3 || first[0] < 90 || first[0] > 96 {
		t.Errorf("ada has %d, %v", first, err)
	}
	second, err := fill(identity.User{UID: 4712, GID: 4712, Name: "bob"}, "x")
	if err == nil || len(second) < 1 || second[0] < 40 || second[0] > 54 {
		t.Errorf("bob has %d, %v", second, err)
	}
	// All are within what the disk has.
	c := open(t, s, request.Named{Name: "y", Node: "n1", Job: 5})
	if left, own, err := c.room(); err != nil || left <= 0 || own < 150<<20 || own > 192<<20 {
		t.Errorf("room = %d, %d, %v", left, own, err)
	}
}

func TestCollect(t *testing.T) {
	s := site(t)
	makeOne(t, s, of(5, 0))
	makeOne(t, s, of(6, 0))
	makeOne(t, s, of(0, 0))
	var removed []string
	collect := func(l Limits) []string {
		t.Helper()
		removed = nil
		must(t, Collect(s, "n1", l, func(r expire.Removed) { removed = append(removed, r.Name) }))
		return removed
	}
	alive := func() (map[uint32]bool, error) { return map[uint32]bool{5: true, 6: true}, nil }
	none := func() (map[uint32]bool, error) { return nil, nil }
	no := func() (map[uint32]bool, error) { return nil, errors.New("no answer") }
	if got := collect(Limits{MaxSize: -1, Jobs: alive}); len(got) != 0 {
		t.Errorf("removed %q while all live", got)
	}
	if err := Collect(s, "n1", Limits{MaxSize: -1, Jobs: no}, nil); err == nil || !exists(t, s, of(5, 0)) {
		t.Errorf("Collect without an answer of Slurm = %v; want an error, and nothing removed", err)
	}
	if got := collect(Limits{MaxSize: -1, Ended: 5, Jobs: no}); len(got) != 1 || exists(t, s, of(5, 0)) || !exists(t, s, of(6, 0)) {
		t.Errorf("removed %q at the end of job 5; want its one", got)
	}
	if got := collect(Limits{MaxSize: -1, Jobs: none}); len(got) != 2 || exists(t, s, of(6, 0)) || !exists(t, s, of(0, 0)) {
		t.Errorf("removed %q when Slurm knows no job; want those of jobs, with what only a lock is left of", got)
	}
	data := filepath.Join(s.Directory, "n1/4711/user:x")
	for _, tt := range []struct {
		name   string
		limits Limits
		want   bool
	}{
		{"used just now", Limits{MaxSize: -1, Unused: time.Hour}, true},
		{"it runs", Limits{MaxSize: 0, InUse: func(*os.File) (bool, error) { return true, nil }}, true},
		{"dry run", Limits{MaxSize: 0, DryRun: true}, true},
		{"small enough", Limits{MaxSize: 1 << 40}, true},
		{"too large", Limits{MaxSize: 0}, false},
	} {
		collect(tt.limits)
		if got := exists(t, s, of(0, 0)); got != tt.want {
			t.Errorf("%s: exists = %t", tt.name, got)
		}
	}
	makeOne(t, s, of(0, 0))
	long := time.Now().Add(-2 * time.Hour)
	must(t, os.Chtimes(data+suffixState, long, long))
	if collect(Limits{MaxSize: -1, Unused: time.Hour}); exists(t, s, of(0, 0)) {
		t.Error("what nobody used stays")
	}
	c := makeOne(t, s, of(0, 0))
	must(t, unlist(c.path)) // as the user does
	if got := collect(Limits{MaxSize: -1}); !slices.Equal(got, []string{"x"}) {
		t.Errorf("removed %q; want what the user has removed", got)
	}
	left, err := filepath.Glob(filepath.Join(s.Directory, "n1/4711/*:*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left are %q, %v", left, err)
	}
}

// TestReserve checks that a file system is larger than the disk only if the site
// wants that.
func TestReserve(t *testing.T) {
	s := site(t)
	s.Size = 8 << 40 // more than where tests run
	for _, s.Overcommit = range []bool{false, true} {
		f, err := os.CreateTemp(t.TempDir(), "")
		must(t, err)
		defer f.Close()
		must(t, open(t, s, of(5, 0)).reserve(f))
		info, err := f.Stat()
		must(t, err)
		if all := info.Size() == int64(s.Size); all != s.Overcommit || info.Size() < config.MinNamed {
			t.Errorf("overcommit %t: %d bytes", s.Overcommit, info.Size())
		}
		s.Directory = filepath.Join(t.TempDir(), "other") // the name is locked
	}
}
