// SPDX-License-Identifier: Apache-2.0

package userfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDestination(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600), os.Mkdir(filepath.Join(dir, "dir"), 0o700),
		os.Symlink("file", filepath.Join(dir, "link")))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		err  string // substring; empty means success
		is   error
	}{
		{path: "new"},
		{path: "file"},
		{path: "dir", err: "dir exists and is no regular file"},
		{path: "link", err: "link exists and is no regular file"},
		{path: "none/new", err: "none: no such file", is: fs.ErrNotExist},
		{path: "file/new", err: "not a directory"},
	} {
		f, err := Destination(filepath.Join(dir, tt.path))
		if tt.err == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.path, err)
				continue
			}
			f.Close()
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.err) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v; want an error with %q", tt.path, err, tt.err)
		}
	}
}
