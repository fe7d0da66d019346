// SPDX-License-Identifier: Apache-2.0

package option

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseDevices(t *testing.T) {
	mount := func(source, target string) Mount {
		return Mount{Source: source, Target: target, Flags: []string{"noexec"}}
	}
	for _, tt := range []struct {
		in   string
		want Devices
		err  string
	}{
		{in: "nvidia.com/gpu=0", want: Devices{Names: []string{"nvidia.com/gpu=0"}}},
		{in: "a.b/c=all,d/e=GPU-1:2,a.b/c=all", want: Devices{Names: []string{"a.b/c=all", "d/e=GPU-1:2"}}},
		{in: "none", want: Devices{None: true}},
		{in: "none,a/b=c", want: Devices{None: true, Names: []string{"a/b=c"}}},
		{in: "/dev/fuse", want: Devices{Mounts: []Mount{mount("/dev/fuse", "/dev/fuse")}}},
		{in: "/dev/a:/dev/b:rwm,x/y=z", want: Devices{Names: []string{"x/y=z"}, Mounts: []Mount{mount("/dev/a", "/dev/b")}}},
		{in: `/dev/a\,b:/opt/c\:d`, want: Devices{Mounts: []Mount{mount("/dev/a,b", "/opt/c:d")}}},

		{in: "", err: `--container-device: "": want VENDOR/CLASS=NAME, a path below /dev, or none`},
		{in: "nvidia.com/gpu", err: `"nvidia.com/gpu": want VENDOR/CLASS=NAME`},
		{in: "gpu=0", err: `"gpu=0": want VENDOR/CLASS=NAME`},
		{in: "../../etc/cdi=0", err: `"../../etc/cdi=0": want VENDOR/CLASS=NAME`},
		{in: "a/b=../c", err: `"a/b=../c": want VENDOR/CLASS=NAME`},
		{in: "a/b=c\nx", err: `"a/b=c\nx": want VENDOR/CLASS=NAME`},
		{in: "a/b=$(id)", err: `"a/b=$(id)": want VENDOR/CLASS=NAME`},
		{in: "none,", err: `"": want VENDOR/CLASS=NAME`},
		{in: "/etc/passwd", err: `"/etc/passwd": want a path below /dev`},
		{in: "/dev/../etc/passwd", err: "want a path below /dev"},
		{in: "/dev", err: "want a path below /dev"},
		{in: "/dev/a:b", err: `destination "b" is not an absolute path`},
		{in: "/dev/a:/dev/b:rx", err: "want PATH[:DST[:rwm]]"},
		{in: "/dev/a:/dev/b:r:w", err: "want PATH[:DST[:rwm]]"},
		{in: "/x,y,/dev/z", err: "--container-device: \"/x\": want a path below /dev\n--container-device: \"y\": want VENDOR"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParseDevices(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("ParseDevices(%q) = %+v, %v; want an error with %q", tt.in, got, err, tt.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("ParseDevices(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
			}
		})
	}
}
