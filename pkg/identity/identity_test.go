// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
)

func needRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// TestDo checks what a user may open, by uid, by group and not at all, and that
// the thread is root again afterwards.
func TestDo(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("", "identity")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	file := func(name string, uid, gid int, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, uid, gid), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	user := User{UID: 4711, GID: 4712, Groups: []uint32{4713}}
	for _, tt := range []struct {
		path string
		may  bool
	}{
		{file("own", 4711, 0, 0o600), true},
		{file("group", 0, 4712, 0o640), true},
		{file("supplementary", 0, 4713, 0o640), true},
		{file("other-group", 0, 4714, 0o640), false},
		{file("root", 0, 0, 0o600), false},
	} {
		t.Run(filepath.Base(tt.path), func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			before, err := current()
			if err != nil {
				t.Fatal(err)
			}
			err = user.Do(func() error {
				f, err := os.Open(tt.path)
				if err != nil {
					return err
				}
				return f.Close()
			})
			if tt.may != (err == nil) || (!tt.may && !errors.Is(err, fs.ErrPermission)) {
				t.Errorf("open %s as user: %v; want allowed %v", tt.path, err, tt.may)
			}
			after, err := current()
			if err != nil || after.UID != before.UID || after.GID != before.GID || !slices.Equal(after.Groups, before.Groups) {
				t.Errorf("identity after Do = %+v, %v; want %+v", after, err, before)
			}
			if _, err := os.ReadFile(tt.path); err != nil {
				t.Errorf("root may no longer read: %v", err)
			}
		})
	}
}

func TestDoRestoresAfterPanic(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	func() {
		defer func() { _ = recover() }()
		_ = User{UID: 4711, GID: 4711}.Do(func() error { panic("test") })
	}()
	if got, err := current(); err != nil || got.UID != 0 || got.GID != 0 {
		t.Errorf("identity after a panic = %+v, %v; want root", got, err)
	}
}

// TestDoCapabilities checks that nothing of root's is left while acting as a
// user, and that all of it is back afterwards.
func TestDoCapabilities(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, during, after capabilities
	if err := before.get(); err != nil {
		t.Fatal(err)
	}
	if err := (User{UID: 4711, GID: 4712}).Do(func() error { return during.get() }); err != nil {
		t.Fatal(err)
	}
	if err := after.get(); err != nil {
		t.Fatal(err)
	}
	if during[0].Effective != 0 || during[1].Effective != 0 {
		t.Errorf("capabilities in effect as the user: %+v", during)
	}
	if before != after {
		t.Errorf("capabilities afterwards are %+v, were %+v", after, before)
	}
}

// TestDoPrivileged checks that files are the user's, but that the kernel refuses
// nothing, and that the thread is itself again afterwards.
func TestDoPrivileged(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	path := filepath.Join(t.TempDir(), "new") // in a directory that is root's alone
	err := User{UID: 4711, GID: 4712}.DoPrivileged(func() error { return os.WriteFile(path, nil, 0o600) })
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Sys().(*syscall.Stat_t).Uid != 4711 || st.Sys().(*syscall.Stat_t).Gid != 4712 {
		t.Errorf("the file is %v, %v; want it to be 4711:4712's", st, err)
	}
	if after, err := current(); err != nil || after.UID != 0 || after.GID != 0 {
		t.Errorf("the thread is %v afterwards, %v", after, err)
	}
}
