// SPDX-License-Identifier: Apache-2.0

package mpi

import (
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/library"
)

func TestCompare(t *testing.T) {
	type v = library.Version
	for _, tt := range []struct {
		host, image         v
		major, full, strict verdict
	}{
		{v{12, 2, 2}, v{12, 2, 0}, fits, fits, fits},
		{v{12, 2}, v{12, 2, 9}, fits, fits, fits},
		{v{12, 4, 1}, v{12, 1, 10}, fits, fits, refuses},
		{v{12, 10}, v{12, 9}, fits, fits, refuses},
		{v{12, 1, 10}, v{12, 2, 2}, doubts, refuses, refuses},
		{v{12}, v{12, 2, 2}, fits, doubts, refuses},
		{v{12, 2, 2}, v{12}, fits, doubts, refuses},
		{v{12, 2, 2}, v{40, 30, 4}, refuses, refuses, refuses},
		{v{40}, v{12}, refuses, refuses, refuses},
		{nil, v{12}, refuses, refuses, refuses},
		{v{12}, nil, refuses, refuses, refuses},
	} {
		for check, want := range map[string]verdict{"": tt.major, "major": tt.major, "full": tt.full, "strict": tt.strict} {
			got, why := compare(check, tt.host, tt.image)
			if got != want || (why == "") != (want == fits) {
				t.Errorf("compare(%q, %s, %s) = %d, %q; want %d", check, tt.host, tt.image, got, why, want)
			}
		}
	}
}

func TestIdentify(t *testing.T) {
	for _, tt := range []struct {
		names         string
		want, purpose string
	}{
		{"libmpi.so.12 libmpi.so.12 libmpi.so.12.1.8", "libmpi.so.12.1.8", "C"},
		{"libmpi.so libmpi.so.12 libmpi.so.12.1.8", "libmpi.so.12.1.8", "C"},
		{"libmpi.so.12 libmpich.so.12 libmpich.so.12.4.1", "libmpi.so.12.4.1", "C"},
		{"libmpi_cray.so.12 libmpi_cray.so.12 libmpi_cray.so.12.0.0", "libmpi_cray.so.12.0.0", "C"},
		{"libmpi.so.12 libmpi_gnu_91.so.12 libmpi_gnu_91.so.12.0.0", "libmpi.so.12.0.0", "C"},
		// Names with which Cray gave old libraries the MPICH ABI.
		{"libmpi.so.12 libmpich_gnu_71.so.3 libmpich_gnu_71.so.3.0.1", "libmpi.so.12", "C"},
		{"libmpifort_intel.so.12 - libmpifort_intel.so.12.0.0", "libmpifort_intel.so.12.0.0", "Fortran"},
		{"libmpichf90.so.12 libmpichfort.so.12 libmpichfort.so.12.4.1", "libmpichf90.so.12.4.1", "Fortran"},
		{"libmpicxx.so.12 - libmpi.so.13", "libmpicxx.so.12", "C++"},
		{"libmpi_mpifh.so.40 - libmpi_mpifh.so.40.30.0", "libmpi_mpifh.so.40.30.0", "libmpi_mpifh"},
		{"libopen-pal.so.40 - -", "libopen-pal.so.40", "libopen-pal"},
		{"libmpi_gnuish.so.12 - -", "libmpi_gnuish.so.12", "libmpi_gnuish"},
	} {
		names := strings.Fields(tt.names)
		name, ok := identify(names[0], names[1:]...)
		got := lib{Name: name}
		if !ok || got.String() != tt.want || got.purpose() != tt.purpose {
			t.Errorf("identify(%s) = %s for %s, %v; want %s for %s", tt.names, &got, got.purpose(), ok, tt.want, tt.purpose)
		}
	}
	if name, ok := identify("mpi.txt", "libmpi.so.12"); ok {
		t.Errorf("identify(mpi.txt) = %v; want none", name)
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
	if got := newest(defined, "GLIBC_2.38"); got != "GLIBC_2.36" {
		t.Errorf("newest = %q; want GLIBC_2.36", got)
	}
}
