// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/mountns"
	"github.com/brolga-hpc/brolga/pkg/userfile"
)

func TestPathsBelow(t *testing.T) {
	table := []mountns.Mount{
		{ID: 1, Parent: 0, Point: "/"},
		{ID: 2, Parent: 1, Point: "/proc"},
		{ID: 3, Parent: 1, Point: "/dev/pts"},
		{ID: 4, Parent: 1, Point: "/b"},
		{ID: 5, Parent: 1, Point: "/a/deep"},
		{ID: 6, Parent: 5, Point: "/a/deep/nested"}, // comes with 5
		{ID: 7, Parent: 5, Point: "/a/deep"},        // on top of 5
		{ID: 8, Parent: 1, Point: "/b/covered"},     // before 4
		{ID: 9, Parent: 1, Point: "/bc"},
		{ID: 10, Parent: 4, Point: "/b/proc"},
		{ID: 11, Parent: 4, Point: "/b/x y"},
		{ID: 12, Parent: 1, Point: "/device"},
	}
	for _, tt := range []struct {
		id   int
		at   string
		want []string
	}{
		{1, "/", []string{"a/deep", "b", "bc", "device"}},
		{1, "/a", []string{"deep"}},
		{1, "/a/deep", nil},
		{4, "/b", []string{"x y"}},
		{4, "/b/x", nil},
		{99, "/", nil},
	} {
		if got := pathsBelow(table, tt.id, tt.at); !slices.Equal(got, tt.want) {
			t.Errorf("pathsBelow(%d, %s) = %q; want %q", tt.id, tt.at, got, tt.want)
		}
	}
}

// TestBindBelow checks what the overlay shows of mounts below the image, also again in a
// container that is kept, whose user has changed the mount points.
func TestBindBelow(t *testing.T) {
	needRoot(t)
	host := makeHost(t, []entry{
		{path: "a/", mode: 0o711, owner: int(ada.UID)}, {path: "a/dir/", mode: 0o755}, {path: "a/dir/covered", mode: 0o644},
		{path: "link", link: "/a/dir"}, {path: "file", mode: 0o644},
	})
	upper := t.TempDir()
	err := mountns.Do(nil, func() error {
		at := filepath.Join(host, "a/dir")
		err := errors.Join(
			unix.Mount("test", at, "tmpfs", 0, "mode=0755"),
			os.WriteFile(filepath.Join(at, "shown"), []byte("shown"), 0o644),
			unix.Mount("/etc/hostname", filepath.Join(host, "file"), "", unix.MS_BIND, ""),
		)
		if err != nil {
			return err
		}
		return errors.Join(checkBelow(host, t.TempDir()), checkHide(upper, host))
	})
	if err != nil {
		t.Error(err)
	}
}

func checkBelow(host, dir string) error {
	image, err := userfile.Directory(host)
	if err != nil {
		return err
	}
	defer image.Close()
	r, err := Build(Params{Dir: dir, Lock: filepath.Join(dir, "lock"), Image: image, Way: userfile.Bind, TmpfsSize: "1m", User: ada})
	if err != nil {
		return err
	}
	name, err := os.ReadFile("/etc/hostname")
	err = errors.Join(err,
		expectContent(filepath.Join(r.Path, "a/dir/shown"), "shown"),
		expectContent(filepath.Join(r.Path, "file"), string(name)),
		expectFlags(filepath.Join(r.Path, "a/dir"), "ro,nosuid,nodev"),
		expectFlags(filepath.Join(r.Path, "file"), "ro,nosuid,nodev"),
		expectFlags(r.Path, "rw,nosuid,nodev"),
	)
	// A file of the image can be below its own mounts.
	f, resolved, openErr := r.OpenFile("/link/shown")
	if openErr != nil || resolved != "/a/dir/shown" {
		return errors.Join(err, fmt.Errorf("OpenFile = %s, %w", resolved, openErr), r.Close())
	}
	var st unix.Stat_t
	if statErr := unix.Stat(filepath.Join(r.Path, "a"), &st); statErr != nil || st.Uid != ada.UID || st.Mode&0o7777 != 0o711 {
		err = errors.Join(err, fmt.Errorf("/a: owner %d, mode %o, %w; want the image's", st.Uid, st.Mode, statErr))
	}
	// Under the mount there is nothing.
	err = errors.Join(err, f.Close(), unix.Unmount(filepath.Join(r.Path, "a/dir"), unix.MNT_DETACH))
	if entries, readErr := os.ReadDir(filepath.Join(r.Path, "a/dir")); readErr != nil || len(entries) > 0 {
		err = errors.Join(err, fmt.Errorf("what is covered shows %v, %w", entries, readErr))
	}
	return errors.Join(err, r.Close())
}

// checkHide hides mount points in an upper directory in which a user has put links in
// their places.
func checkHide(upper, host string) error {
	elsewhere := filepath.Join(upper, "elsewhere")
	err := errors.Join(os.Mkdir(elsewhere, 0o755), os.Symlink(elsewhere, filepath.Join(upper, "a")), os.Symlink("elsewhere", filepath.Join(upper, "file")))
	dir, openErr := os.Open(upper)
	lower, lowerErr := os.Open(host)
	if err = errors.Join(err, openErr, lowerErr); err != nil {
		return err
	}
	defer closeAll(dir, lower)
	r := Rootfs{params: Params{User: ada}, lower: lower, below: []below{{path: "a/dir", isDir: true}, {path: "file"}}}
	if err := r.hideBelow(dir); err != nil {
		return err
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) > 0 {
		return fmt.Errorf("links in the upper directory were followed: %v, %w", entries, err)
	}
	if !r.below[0].hidden {
		return fmt.Errorf("what is hidden by a link would be shown: %+v", r.below)
	}
	return nil
}
