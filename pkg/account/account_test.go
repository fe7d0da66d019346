// SPDX-License-Identifier: Apache-2.0

package account

import (
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/identity"
)

func TestPasswd(t *testing.T) {
	ada := identity.User{Name: "ada", UID: 1000, GID: 1001, Gecos: "Ada L.", Home: "/home/ada", Shell: "/bin/sh"}
	const line = "ada:x:1000:1001:Ada L.:/home/ada:/bin/sh\n"
	for _, tt := range []struct {
		name, image string
		user        identity.User
		want        string
	}{
		{"no file", "", ada, line},
		{"an image's accounts stay", "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:\n", ada, line + "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:\n"},
		// ubuntu images since 24.04 have a user of their own.
		{"the same number", "root:x:0:0::/:\nubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash\n", ada, line + "root:x:0:0::/:\n"},
		{"the same name", "ada:x:5:5::/:\nbin:x:2:2::/:\n", ada, line + "bin:x:2:2::/:\n"},
		{"no newline at the end", "bin:x:2:2::/:", ada, line + "bin:x:2:2::/:\n"},
		{"carriage returns", "bin:x:2:2::/:\r\n", ada, line + "bin:x:2:2::/:\n"},
		{"leading zeros", "ubuntu:x:01000:1000::/:\n", ada, line},
		{"no accounts", "\n# comment\n+::::::\n-x\nbin:x\nbin:x::2::/:\nbin:x:-1:2::/:\nbin:x:4294967296:2::/:\nbin:x: 2:2::/:\n", ada, line},
		{"hostile fields", "", identity.User{Name: "a:b", UID: 1, GID: 1, Gecos: "x\nroot::0:0::/:/bin/sh", Home: "/h:/\r", Shell: "/s\x00"}, "a_b:x:1:1:x_root__0_0__/_/bin/sh:/h_/_:/s_\n"},
		{"root", "root:x:0:0:root:/root:/bin/bash\n", identity.User{Name: "root", Home: "/root", Shell: "/bin/sh"}, "root:x:0:0::/root:/bin/sh\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(Passwd([]byte(tt.image), tt.user)); got != tt.want {
				t.Errorf("Passwd = %q; want %q", got, tt.want)
			}
		})
	}
}

func TestGroupFile(t *testing.T) {
	groups := []Group{{"staff", 1001}, {"video", 44}}
	const lines = "staff:x:1001:ada\nvideo:x:44:ada\n"
	for _, tt := range []struct {
		name, image string
		groups      []Group
		want        string
	}{
		{"no file", "", groups, lines},
		{"no groups", "root:x:0:\n", nil, "root:x:0:\n"},
		{"an image's groups stay", "root:x:0:\nadm:x:4:syslog,ubuntu\n", groups, lines + "root:x:0:\nadm:x:4:syslog,ubuntu\n"},
		{"the same number", "ubuntu:x:1001:\n", groups, lines},
		// The host's number counts: it is what the user's files have.
		{"the same name", "video:x:27:\nstaff:x:50:\n", groups, lines},
		{"twice", "", []Group{{"staff", 1001}, {"again", 1001}, {"staff", 1001}}, "staff:x:1001:ada\n"},
		{"hostile name", "", []Group{{"a:x:0:\nwheel", 5}}, "a_x_0__wheel:x:5:ada\n"},
		{"no group", "x\nadm:x:4\n::::\n", groups, lines},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(GroupFile([]byte(tt.image), tt.groups, "ada")); got != tt.want {
				t.Errorf("GroupFile = %q; want %q", got, tt.want)
			}
		})
	}
}

// FuzzPasswd checks that no image gives the user's number to another name.
func FuzzPasswd(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/bash\nubuntu:x:1000:1000::/home/ubuntu:/bin/bash\n")
	f.Add("a:x:+1000:0::/:\r\nada:::::\n:::")
	f.Fuzz(func(t *testing.T, image string) {
		got := string(Passwd([]byte(image), identity.User{Name: "ada", UID: 1000, Home: "/home/ada", Shell: "/bin/sh"}))
		for i, line := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
			fields := strings.Split(line, ":")
			if len(fields) < 4 || (i > 0 && (fields[0] == "ada" || fields[2] == "1000")) {
				t.Fatalf("Passwd(%q) has the line %q", image, line)
			}
		}
	})
}
