// SPDX-License-Identifier: Apache-2.0

package mpi

import (
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/hook/replace"
)

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
		name, ok := purposes.Identify(names[0], names[1:]...)
		got := replace.Library{Name: name}
		if !ok || got.String() != tt.want || purposes.Of(name.Base) != tt.purpose {
			t.Errorf("identify(%s) = %s for %s, %v; want %s for %s", tt.names, &got, purposes.Of(name.Base), ok, tt.want, tt.purpose)
		}
	}
	if name, ok := purposes.Identify("mpi.txt", "libmpi.so.12"); ok {
		t.Errorf("identify(mpi.txt) = %v; want none", name)
	}
}
