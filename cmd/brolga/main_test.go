// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestExitStatus(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want int
	}{
		{"help", []string{"help"}, exitOK},
		{"help option", []string{"--help"}, exitOK},
		{"help of a command", []string{"pull", "--help"}, exitOK},
		{"version", []string{"version"}, exitOK},

		{"help of run", []string{"run", "--help"}, exitOK},

		{"run: no image", []string{"run"}, exitRun},
		{"run: bad image", []string{"run", "A", "true"}, exitRun},
		{"run: no such option", []string{"run", "--frobnicate", "a"}, exitRun},
		{"run: option of jobs", []string{"run", "--inherit", "a"}, exitRun},
		{"run: flag with a value", []string{"run", "--writable=false", "a"}, exitRun},
		{"nothing", nil, exitUsage},
		{"no such command", []string{"frobnicate"}, exitUsage},
		{"no such option", []string{"pull", "--frobnicate", "a"}, exitUsage},
		{"no image", []string{"pull"}, exitUsage},
		{"two images", []string{"pull", "a", "b"}, exitUsage},
		{"bad image", []string{"pull", "A"}, exitFailure},
		{"no such configuration", []string{"images", "--config", "/no/such/file"}, exitFailure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := run(t.Context(), tt.args); got != tt.want {
				t.Errorf("run(%q) = %d; want %d", tt.args, got, tt.want)
			}
		})
	}
}
