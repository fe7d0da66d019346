// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/image/layout"
	"github.com/brolga-hpc/brolga/pkg/image/ref"
	"github.com/brolga-hpc/brolga/pkg/image/store"
	"github.com/brolga-hpc/brolga/pkg/policy"
)

// TestReadConfig checks what the store keeps of a configuration, and what is refused.
func TestReadConfig(t *testing.T) {
	amd64 := layout.Platform{OS: "linux", Architecture: "amd64"}
	const good = `{"os": "linux", "architecture": "amd64", "config": {"Env": ["A=b"], "Entrypoint": ["/run"], "WorkingDir": "/w"}}`
	platform, got, err := readConfig([]byte(good), amd64)
	if err != nil || platform != "linux/amd64" || !slices.Equal(got.Env, []string{"A=b"}) || got.WorkingDir != "/w" || !slices.Equal(got.Entrypoint, []string{"/run"}) {
		t.Errorf("readConfig = %q, %+v, %v", platform, got, err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"no JSON", "{", "read configuration"},
		{"another machine's", strings.Replace(good, "amd64", "s390x", 1), "linux/amd64; there is linux/s390x"},
		{"a zero byte", strings.Replace(good, "A=b", `A=\u0000`, 1), "a zero byte in the environment or command"},
	} {
		if _, _, err := readConfig([]byte(tt.text), amd64); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

// TestVerifySignature checks when evidence is asked for, and that none is believed that
// does not convince.
func TestVerifySignature(t *testing.T) {
	image, err := ref.Parse("example.org/a:1")
	if err != nil {
		t.Fatal(err)
	}
	digest := layout.Digest([]byte("manifest"))
	for _, tt := range []struct {
		check          policy.Check
		evidence, want string
	}{
		{policy.Off, "", ""},
		{policy.Warn, "", ""}, // the pull warns
		{policy.Require, "{", "read signatures"},
		{policy.Require, "{}", "no such file"}, // of keys
	} {
		p := policy.Policy{Signatures: []policy.Rule{{Images: "**", Check: tt.check, Keys: []string{"/no/such/key"}}}}
		keys, err := VerifySignature(p, image, digest, strings.NewReader(tt.evidence))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || len(keys) > 0 {
			t.Errorf("%s with %q: %v, %v; want %q", tt.check, tt.evidence, keys, err, tt.want)
		}
	}
}

// TestMost checks that the smaller limit bounds an image: the site's, or the user's share.
func TestMost(t *testing.T) {
	for _, tt := range []struct{ share, squashfs, want int64 }{
		{0, 10, 0}, {5, 10, 5}, {20, 10, 0}, {10, 10, 0},
	} {
		l := storeLimits{share: store.Share{User: "ada", Size: tt.share}, squashfs: tt.squashfs}
		if got := l.most(); got != tt.want {
			t.Errorf("most of share %d, squashfs %d = %d; want %d", tt.share, tt.squashfs, got, tt.want)
		}
	}
}

// TestBounded checks that an answer without end is refused.
func TestBounded(t *testing.T) {
	b := bounded{left: 4}
	if _, err := b.Write([]byte("1234")); err != nil {
		t.Error(err)
	}
	if _, err := b.Write([]byte("5")); err == nil {
		t.Error("one byte too many is taken")
	}
}

// TestSquashFiles checks that a draft that exists is not written to.
func TestSquashFiles(t *testing.T) {
	draft := filepath.Join(t.TempDir(), "draft")
	if _, err := squashFiles(input{}, draft); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(draft); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the draft: %v, %v", st, err)
	}
	if _, err := squashFiles(input{}, draft); err == nil {
		t.Error("a file that exists is taken for the draft")
	}
}
