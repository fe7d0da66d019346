// SPDX-License-Identifier: Apache-2.0

package container

import "testing"

func TestRunning(t *testing.T) {
	const many = 1 << 30
	for _, tt := range []struct {
		in   string
		want int
	}{
		{"0.20 0.18 0.12 1/80 11206\n", 1},
		{"10.51 3.27 3.60 12/1204 22\n", 12},

		{"", many},
		{"0.20 0.18 0.12", many},
		{"0.20 0.18 0.12 x/80 1", many},
	} {
		t.Run(tt.in, func(t *testing.T) {
			if got := running(tt.in); got != tt.want {
				t.Errorf("running(%q) = %d; want %d", tt.in, got, tt.want)
			}
		})
	}
}
