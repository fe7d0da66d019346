// SPDX-License-Identifier: Apache-2.0

package mpi

import "github.com/brolga-hpc/brolga/pkg/hook/replace"

// purposeC is the purpose of the library that all others need.
const purposeC = "C"

// purposes are what the libraries of MPICH, and of what is made of it, are for, with
// their names (https://www.mpich.org/abi/). Debian and old MVAPICH have "mpich"
// in their names; Cray appends a compiler, as in libmpi_gnu_91.so.12.
var purposes = replace.Purposes{
	Names: map[string][]string{
		purposeC:  {"libmpi", "libmpich"},
		"Fortran": {"libmpifort", "libmpichfort", "libmpichf90"},
		"C++":     {"libmpicxx", "libmpichcxx"},
	},
	Suffixes: []string{"gnu", "intel", "cray", "crayclang", "aocc", "amd", "nvidia", "pgi"},
}

// core are beginnings of names of libraries that Open MPI consists of.
var core = []string{"libopen-", "libmca_common_", "liboshmem"}
