// SPDX-License-Identifier: Apache-2.0

package nodecache

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// directory is one that only root can change, as the memory's is.
func directory(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: believes only files of root's")
	}
	return t.TempDir()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// recalls tells whether the memory still has what was kept under the key.
func recalls(m Cache, key string) bool {
	var value string
	return m.Recall(key, &value) && value == "found by "+key
}

func kept(t *testing.T, m Cache, key string, paths ...string) {
	t.Helper()
	if err := m.Keep(key, "found by "+key, Look(paths)); err != nil {
		t.Fatal(err)
	}
}

func TestRecall(t *testing.T) {
	m := At(filepath.Join(directory(t), "made", "when", "needed"))
	if recalls(m, "a") {
		t.Error("a new memory knows something")
	}
	kept(t, m, "a")
	kept(t, m, "b")
	kept(t, m, "a")
	if !recalls(m, "a") || !recalls(m, "b") || recalls(m, "c") {
		t.Error("the memory does not have what was kept, and nothing else")
	}
	var none Cache
	kept(t, none, "a")
	if recalls(none, "a") {
		t.Error("the zero value remembers")
	}
}

// TestRecallNotices changes a file of the host in all the ways there are.
func TestRecallNotices(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(path string) error
		want   bool
	}{
		{"nothing", func(string) error { return nil }, true},
		{"another file beside it", func(p string) error { return os.WriteFile(p+".other", nil, 0o600) }, true},
		{"its content", func(p string) error { return os.WriteFile(p, []byte("NEW"), 0o600) }, false},
		{"its content, and the time set back", func(p string) error {
			st, err := os.Stat(p)
			if err == nil {
				err = os.WriteFile(p, []byte("NEW"), 0o600)
			}
			if err == nil {
				err = os.Chtimes(p, st.ModTime(), st.ModTime())
			}
			return err
		}, false},
		{"another file in its place", func(p string) error {
			if err := os.WriteFile(p+".new", []byte("old"), 0o600); err != nil {
				return err
			}
			return os.Rename(p+".new", p)
		}, false},
		{"it is gone", os.Remove, false},
		{"the link leads to another", func(p string) error {
			link := filepath.Join(filepath.Dir(p), "link")
			if err := os.Remove(link); err != nil {
				return err
			}
			return os.Symlink("/dev/null", link)
		}, false},
		{"what was missing is there", func(p string) error { return os.WriteFile(filepath.Dir(p)+"/missing", nil, 0o600) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := directory(t)
			path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
			write(t, path, "old")
			if err := os.Symlink("file", link); err != nil {
				t.Fatal(err)
			}
			m := At(filepath.Join(dir, "memory"))
			kept(t, m, "a", path, link, filepath.Join(dir, "missing"))
			if err := tt.change(path); err != nil {
				t.Fatal(err)
			}
			if got := recalls(m, "a"); got != tt.want {
				t.Errorf("Recall = %v; want %v", got, tt.want)
			}
		})
	}
}

// TestRecallDistrusts checks that only whole files of root's are believed.
func TestRecallDistrusts(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"writable by others": func(p string) error { return os.Chmod(p, 0o602) },
		"another's":          func(p string) error { return os.Chown(p, 4711, 0) },
		"cut off":            func(p string) error { return os.Truncate(p, 20) },
		"empty":              func(p string) error { return os.Truncate(p, 0) },
		"of another kind":    func(p string) error { return os.WriteFile(p, []byte(`{"Value": 5}`), 0o600) },
		"too large":          func(p string) error { return os.Truncate(p, largest+1) },
		"too old": func(p string) error {
			then := time.Now().Add(-keep - time.Minute)
			return os.Chtimes(p, then, then)
		},
		"in a directory of others": func(p string) error { return os.Chmod(filepath.Dir(p), 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			m := At(directory(t))
			kept(t, m, "a")
			if err := change(m.path("a")); err != nil {
				t.Fatal(err)
			}
			if recalls(m, "a") {
				t.Error("Recall believes it")
			}
		})
	}
}

// TestKeepIsBounded checks that the oldest goes, and what somebody left half written.
func TestKeepIsBounded(t *testing.T) {
	m := At(directory(t))
	write(t, filepath.Join(m.dir, ".new-abandoned"), "half")
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(m.dir, ".new-abandoned"), then, then); err != nil {
		t.Fatal(err)
	}
	for i := range most + 10 {
		key := fmt.Sprint(i)
		kept(t, m, key)
		then := time.Now().Add(time.Duration(i-most-10) * time.Minute)
		if err := os.Chtimes(m.path(key), then, then); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil || len(entries) != most {
		t.Errorf("%d files, %v; want %d", len(entries), err, most)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s is left", e.Name())
		}
	}
	if recalls(m, "0") || !recalls(m, fmt.Sprint(most+9)) {
		t.Error("what is gone is not the oldest")
	}
	if err := m.Keep("huge", strings.Repeat("x", largest), nil); err != nil || m.Recall("huge", new(string)) {
		t.Errorf("Keep keeps what is too large, %v", err)
	}
}
