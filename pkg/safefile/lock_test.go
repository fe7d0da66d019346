// SPDX-License-Identifier: Apache-2.0

package safefile

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first, second := open(), open()
	defer second.Close()
	if err := Lock(first, unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if locked, err := Try(second); locked || err != nil {
		t.Errorf("Try = %v, %v while another has the lock", locked, err)
	}
	first.Close()
	if locked, err := Try(second); !locked || err != nil {
		t.Errorf("Try = %v, %v when nobody has the lock", locked, err)
	}
	second.Close()
	if _, err := Try(second); err == nil {
		t.Error("Try of a closed file: no error")
	}
}
