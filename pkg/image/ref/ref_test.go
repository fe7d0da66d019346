// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/fault"
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
		{in: "a@b.org@r.example.org#a/b", want: "r.example.org/a/b:latest"},
		{in: "host:5000/x.tar", want: "host:5000/x.tar:latest"},
		{in: "app:1.tar", want: "docker.io/library/app:1.tar"},
		{in: "/data/app.sqsh", want: "/data/app.sqsh"},
		{in: "/data//sub/../app", want: "/data/app"},
		{in: "./app.sqsh", want: "./app.sqsh"},
		{in: "./sub/./app.sqsh", want: "./sub/app.sqsh"},
		{in: "../app.sqsh@" + digest, want: "../app.sqsh@" + digest},
		{in: "/with space and ü", want: "/with space and ü"},
		{in: "oci:dir", want: "oci:dir"},
		{in: "oci:/a/dir/:v1", want: "oci:/a/dir:v1"},
		{in: "oci:dir:v1@" + digest, want: "oci:dir:v1@" + digest},
		{in: "oci-archive:x.tar:docker.io/library/ubuntu:24.04", want: "oci-archive:x.tar:docker.io/library/ubuntu:24.04"},
		{in: "docker-archive:/x.tar", want: "docker-archive:/x.tar"},
		{in: "dir:/srv/root/", want: "dir:/srv/root"},
		{in: "dir:root:1", want: "dir:root:1"},

		{in: "", err: "image name is empty"},
		{in: "app.sqsh", err: "a repository or a file?"},
		{in: "sub/app.squashfs", err: "a repository or a file?"},
		{in: "app.tar.gz", err: "a repository or a file?"},
		{in: "app.sif", err: "files of Apptainer are not supported"},
		{in: "~/app.sqsh", err: "the shell has not replaced ~"},
		{in: ".", err: "that is a directory"},
		{in: "oci:", err: "the path is missing"},
		{in: "oci::x", err: "the path is missing"},
		{in: "oci-archive:x.tar:", err: "the name of the image in it is missing"},
		{in: "dir:", err: "the path is missing"},
		{in: "dir:/a\nb", err: "control characters"},
		{in: "/a\xffb", err: "control characters"},
		{in: "/" + strings.Repeat("a", 4095), err: "longer than 4095"},
		{in: "docker-daemon:x", err: "images of a Docker daemon are not supported"},
		{in: "https://x/y", err: "web addresses are not supported"},
		{in: "/u@a.b#c", want: "/u@a.b#c"},
		{in: "-u@a.b#c", err: `user "-u"`},
		{in: "@a.b#c", err: `user ""`},
		{in: "Ubuntu", err: `repository "Ubuntu"`},
		{in: "ubuntu:", err: `tag ""`},
		{in: "ubuntu:a b", err: `tag "a b"`},
		{in: "ubuntu:" + strings.Repeat("x", 129), err: "want up to 128"},
		{in: "ubuntu@sha256:12", err: "want sha256: and 64"},
		{in: "ubuntu@", err: "want sha256: and 64"},
		{in: "ubuntu@sha512:" + strings.Repeat("0", 128), err: "want sha256: and 64"},
		{in: "docker://", err: "repository is missing"},
		{in: "docker:host.example/app", err: `registry "docker:host.example": want`},
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
		{in: strings.Repeat("a", 240), err: "longer than 255"}, // with docker.io/library/
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

// TestArgument checks what another program is told, where that is not String.
func TestArgument(t *testing.T) {
	const in = "$oauthtoken@nvcr.io#nvidia/pytorch:1"
	r, err := Parse(in)
	if err != nil || r.User != "$oauthtoken" || r.Argument() != in {
		t.Errorf("Argument of %q = %q (user %q), %v", in, r.Argument(), r.User, err)
	}
}

// TestPassword checks that a password in a name is refused, and not shown.
func TestPassword(t *testing.T) {
	const secret = "geh@e/i#m:"
	for _, tt := range []struct{ in, shown string }{
		{"me:" + secret + "@registry.example.org/group/app:1.0", "me:***@registry.example.org/group/app:1.0"},
		{"docker://me:" + secret + "@registry.example.org:5000/app", "docker://me:***@registry.example.org:5000/app"},
		{"https://me:" + secret + "@registry.example.org/app", "https://me:***@registry.example.org/app"},
		{"me:" + secret + "@registry.example.org#app", "me:***@registry.example.org#app"},
		{"me:" + secret + "@registry.example.org/app@" + digest, "me:***@registry.example.org/app"},
	} {
		_, err := Parse(tt.in)
		if err == nil || strings.Contains(err.Error()+fault.Hint(err), secret) || !strings.Contains(err.Error(), tt.shown) {
			t.Errorf("Parse(%q) = %v, hint %q; want an error with %q", tt.in, err, fault.Hint(err), tt.shown)
		}
		if got := fault.Hint(err); !strings.Contains(got, `"brolga login registry.example.org`) {
			t.Errorf("Parse(%q) has the hint %q", tt.in, got)
		}
	}
	for _, in := range []string{"localhost:5000/app:1@" + digest, "oci:dir:x@y/z", "./a:b@c/d", "me@registry.example.org#app:1"} {
		if _, err := Parse(in); err != nil {
			t.Errorf("Parse(%q) = %v", in, err)
		}
	}
}

func TestRelativePaths(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"./x.sqsh", "/w/x.sqsh"},
		{"../x.sqsh", "/x.sqsh"},
		{"dir:x", "dir:/w/x"},
		{"oci:x:v1@" + digest, "oci:/w/x:v1@" + digest},
		{"docker-archive:/x.tar", "docker-archive:/x.tar"},
		{"ubuntu", "docker.io/library/ubuntu:latest"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			r, err := Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.In("/w").String(); got != tt.want {
				t.Errorf("Parse(%q).In(/w) = %q; want %q", tt.in, got, tt.want)
			}
		})
	}
}

// TestHints checks that who names a file wrongly is told how.
func TestHints(t *testing.T) {
	for _, tt := range []struct{ in, hint string }{
		{"app.sqsh", "a file is named ./app.sqsh"},
		{"images/app.sqsh", "a file is named ./images/app.sqsh"},
		{"app.tar", "a file is named docker-archive:app.tar"},
		{".", "a root directory is named dir:."},
		{"~/app.sqsh", "write $HOME in place of ~"},
		{"docker-daemon:app", `save it with "docker save" or "podman save" and name the file: docker-archive:FILE`},
		{"Ubuntu", "repository names are lower-case: ubuntu"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			_, err := Parse(tt.in)
			if got := fault.Hint(err); got != tt.hint {
				t.Errorf("Parse(%q) = %v with hint %q; want hint %q", tt.in, err, got, tt.hint)
			}
		})
	}
}

// FuzzParse checks that what is accepted is printable and stays itself.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"ubuntu", "docker://ubuntu:24.04", "127.0.0.1:5000/a/b@" + digest, "u@nvcr.io#a/b:c", "./x.sqsh", "oci:x",
		"a:b/c:d", "[::1]/x", "A/b", "ubuntu\n", "x:é", "docker://docker://x", "a.b@c.d#e", "dir:/x/../y", "dir:.", "dIr:02/0/8", "docker://oci:5000/x",
		"oci-archive:x.tar:a:b@" + digest, "docker-archive:x@y:z", "/a@" + digest + "@" + digest, "./..", "../@" + digest,
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
		argument := r.Argument()
		if strings.ContainsFunc(argument, func(c rune) bool { return c < ' ' || c == 0x7f || (c >= 0x7f && !r.IsLocal()) }) {
			t.Errorf("Parse(%q) = %q, which is not printable", s, argument)
		}
		if again, err := Parse(argument); err != nil || again != r {
			t.Errorf("Parse(%q) = %q, %v; want %q", argument, again, err, argument)
		}
		r.User = ""
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("Parse(%q) = %q, %v; want %q", r, again, err, r)
		}
	})
}
