// SPDX-License-Identifier: Apache-2.0

package label

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/wire"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	none, off, both := t.TempDir(), t.TempDir(), t.TempDir()
	put(t, filepath.Join(off, "module/apparmor/parameters/enabled"), "N\n")
	put(t, filepath.Join(both, "module/apparmor/parameters/enabled"), "Y\n")
	put(t, filepath.Join(both, "fs/selinux/enforce"), "1")
	for _, tt := range []struct {
		name   string
		labels Labels
		sys    string
		want   string
	}{
		{"nothing wanted", Labels{}, none, ""},
		{"both", Labels{"a", "b"}, both, ""},
		{"no AppArmor", Labels{AppArmor: "a"}, none, `the site wants AppArmor "a" for tasks, and the kernel of this node has no AppArmor, or it is off`},
		{"AppArmor is off", Labels{AppArmor: "a"}, off, `no AppArmor, or it is off`},
		{"no SELinux", Labels{SELinux: "b"}, off, `the site wants SELinux "b" for tasks, and the kernel of this node has no SELinux, or it is off`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.labels.Check(tt.sys)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(fault.Hint(err), "container.")) {
				t.Errorf("Check = %v (hint %q); want %q", err, fault.Hint(err), tt.want)
			}
		})
	}
}

func TestRecords(t *testing.T) {
	got := Labels{"a", "b"}.Records()
	if len(got) != 2 || got[0] != (wire.Record{Key: "apparmor", Value: "a"}) || got[1] != (wire.Record{Key: "selinux", Value: "b"}) {
		t.Errorf("records %v", got)
	}
	if got := (Labels{}).Records(); len(got) != 0 {
		t.Errorf("without labels %v", got)
	}
}

func TestOnExec(t *testing.T) {
	proc := t.TempDir()
	dir, err := os.Open(proc)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := (Labels{AppArmor: "a"}).OnExec(dir); err == nil || err.Error() != "change to the site's AppArmor profile a: no such file or directory" {
		t.Errorf("without AppArmor %v", err)
	}
	own, exec := filepath.Join(proc, "thread-self/attr/apparmor/exec"), filepath.Join(proc, "thread-self/attr/exec")
	put(t, own, "")
	put(t, exec, "")
	if err := (Labels{"a", "b"}).OnExec(dir); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{own: "exec a", exec: "b"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s has %q, %v; want %q", path, got, err, want)
		}
	}
}
