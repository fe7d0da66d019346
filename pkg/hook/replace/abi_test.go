// SPDX-License-Identifier: Apache-2.0

package replace

import (
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/ldso"
)

func TestCompare(t *testing.T) {
	type v = ldso.Version
	for _, tt := range []struct {
		host, image         v
		major, full, strict Verdict
	}{
		{v{12, 2, 2}, v{12, 2, 0}, Fits, Fits, Fits},
		{v{12, 2}, v{12, 2, 9}, Fits, Fits, Fits},
		{v{12, 4, 1}, v{12, 1, 10}, Fits, Fits, Refuses},
		{v{12, 10}, v{12, 9}, Fits, Fits, Refuses},
		{v{12, 1, 10}, v{12, 2, 2}, Doubts, Refuses, Refuses},
		{v{12}, v{12, 2, 2}, Fits, Doubts, Refuses},
		{v{12, 2, 2}, v{12}, Fits, Doubts, Refuses},
		{v{12, 2, 2}, v{40, 30, 4}, Refuses, Refuses, Refuses},
		{v{40}, v{12}, Refuses, Refuses, Refuses},
		{nil, v{12}, Refuses, Refuses, Refuses},
		{v{12}, nil, Refuses, Refuses, Refuses},
	} {
		for check, want := range map[string]Verdict{"": tt.major, "major": tt.major, "full": tt.full, "strict": tt.strict} {
			got, why := Compare(check, tt.host, tt.image)
			if got != want || (why == "") != (want == Fits) {
				t.Errorf("Compare(%q, %s, %s) = %d, %q; want %d", check, tt.host, tt.image, got, why, want)
			}
		}
	}
}

func TestMissing(t *testing.T) {
	defined := []string{"libc.so.6", "GLIBC_2.2.5", "GLIBC_2.9", "GLIBC_2.36", "GLIBC_PRIVATE"}
	for _, tt := range []struct {
		required string
		want     string
	}{
		{"", ""},
		{"GLIBC_2.2.5 GLIBC_2.36", ""},
		{"GLIBC_2.9 GLIBC_2.38 GLIBC_2.37", "GLIBC_2.38"},
		{"GLIBC_ABI_DT_RELR", "GLIBC_ABI_DT_RELR"},
	} {
		if got := missing(strings.Fields(tt.required), defined); got != tt.want {
			t.Errorf("missing(%s) = %q; want %q", tt.required, got, tt.want)
		}
	}
	if got := Newest(defined, "GLIBC_2.38"); got != "GLIBC_2.36" {
		t.Errorf("Newest = %q; want GLIBC_2.36", got)
	}
}
