// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"strings"
	"testing"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want string // canonical form
		err  string // substring of the error; empty means success
	}{
		{in: "ubuntu", want: "docker.io/library/ubuntu:latest"},
		{in: "ubuntu:24.04", want: "docker.io/library/ubuntu:24.04"},
		{in: "docker://ubuntu:24.04", want: "docker.io/library/ubuntu:24.04"},
		{in: "docker.io/ubuntu", want: "docker.io/library/ubuntu:latest"},
		{in: "index.docker.io/ubuntu", want: "docker.io/library/ubuntu:latest"},
		{in: "user/app", want: "docker.io/user/app:latest"},
		{in: "localhost/app", want: "localhost/app:latest"},
		{in: "127.0.0.1:5000/debian:nope", want: "127.0.0.1:5000/debian:nope"},
		{in: "[::1]:5000/debian", want: "[::1]:5000/debian:latest"},
		{in: "Host/app", want: "Host/app:latest"},
		{in: "Host.Example/app", want: "host.example/app:latest"},
		{in: "nvcr.io/nvidia/pytorch:23.01-py3", want: "nvcr.io/nvidia/pytorch:23.01-py3"},
		{in: "a__b/c-_d", err: "repository"},
		{in: "a__b/c--d", want: "docker.io/a__b/c--d:latest"},
		{in: "ubuntu@" + digest, want: "docker.io/library/ubuntu@" + digest},
		{in: "ubuntu:24.04@" + digest, want: "docker.io/library/ubuntu:24.04@" + digest},
		{in: "nvcr.io#nvidia/pytorch:23.01", want: "nvcr.io/nvidia/pytorch:23.01"},
		{in: "docker://$oauthtoken@nvcr.io#nvidia/pytorch", want: "nvcr.io/nvidia/pytorch:latest"},
		{in: "docker.io#ubuntu", want: "docker.io/library/ubuntu:latest"},
		{in: "me@r.example.org:5000#a/b:1", want: "r.example.org:5000/a/b:1"},

		{in: "", err: "image name is empty"},
		{in: "/data/app.sqsh", err: "squashfs files are not supported yet"},
		{in: "./app.sqsh", err: "squashfs files are not supported yet"},
		{in: "app.sqsh", err: "squashfs files are not supported yet"},
		{in: "app.squashfs", err: "squashfs files are not supported yet"},
		{in: "oci:dir", err: "OCI layouts are not supported yet"},
		{in: "oci-archive:x.tar", err: "OCI archives are not supported yet"},
		{in: "docker-archive:x.tar", err: "Docker archives are not supported yet"},
		{in: "dir:/x", err: "image directories are not supported yet"},
		{in: "../x", err: "files and directories are not supported yet"},
		{in: "Ubuntu", err: `repository "Ubuntu"`},
		{in: "ubuntu:", err: `tag ""`},
		{in: "ubuntu:a b", err: `tag "a b"`},
		{in: "ubuntu:" + strings.Repeat("x", 129), err: "want up to 128"},
		{in: "ubuntu@sha256:12", err: "want sha256: and 64"},
		{in: "ubuntu@", err: "want sha256: and 64"},
		{in: "ubuntu@sha512:" + strings.Repeat("0", 128), err: "want sha256: and 64"},
		{in: "docker://", err: "repository is missing"},
		{in: "host.example/", err: "repository is missing"},
		{in: "#x", err: `registry ""`},
		{in: "nvcr#x", err: `registry "nvcr"`},
		{in: "a.b#b#c", err: "repository"},
		{in: "-x.example/app", err: "registry"},
		{in: "a//b", err: "repository"},
		{in: "a/../b", err: "repository"},
		{in: "ubuntu\n", err: `"ubuntu\n"`},
		{in: "ubuntu\x00", err: `"ubuntu\x00"`},
		{in: strings.Repeat("a", 300), err: "longer than 255"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := Parse(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("Parse(%q) = %q, %v; want an error with %q", tt.in, got, err, tt.err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Fatalf("Parse(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
			}
		})
	}
}

// FuzzParse checks that what is accepted is printable and stays itself.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"ubuntu", "docker://ubuntu:24.04", "127.0.0.1:5000/a/b@" + digest, "u@nvcr.io#a/b:c", "./x.sqsh", "oci:x",
		"a:b/c:d", "[::1]/x", "A/b", "ubuntu\n", "x:é", "docker://docker://x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(c rune) bool { return c < ' ' || c == 0x7f }) {
				t.Errorf("Parse(%q): the error %q has control characters", s, err)
			}
			return
		}
		canonical := r.String()
		if strings.ContainsFunc(canonical, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			t.Errorf("Parse(%q) = %q, which is not printable", s, canonical)
		}
		if again, err := Parse(canonical); err != nil || again != r {
			t.Errorf("Parse(%q) = %q, %v; want %q", canonical, again, err, canonical)
		}
	})
}
