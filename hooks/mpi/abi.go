// SPDX-License-Identifier: Apache-2.0

package mpi

import (
	"fmt"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/library"
)

// purposeC is the purpose of the library that all others need.
const purposeC = "C"

// purposes are what the libraries of MPICH, and of what is made of it, are for, with
// their names (https://www.mpich.org/abi/). Debian and old MVAPICH have "mpich"
// in their names; Cray appends a compiler.
var purposes = map[string][]string{
	purposeC:  {"libmpi", "libmpich"},
	"Fortran": {"libmpifort", "libmpichfort", "libmpichf90"},
	"C++":     {"libmpicxx", "libmpichcxx"},
}

// compilers are what follows an underscore in names of Cray's, such as
// libmpi_gnu_91.so.12.
var compilers = []string{"gnu", "intel", "cray", "crayclang", "aocc", "amd", "nvidia", "pgi"}

// purposeOf returns the purpose of a library by the first part of its name. One
// that is not of MPICH is its own purpose.
func purposeOf(base string) string {
	plain, suffix, vendor := strings.Cut(base, "_")
	suffix, _, _ = strings.Cut(suffix, "_")
	if vendor && !slices.Contains(compilers, suffix) {
		return base
	}
	for purpose, names := range purposes {
		if slices.Contains(names, plain) {
			return purpose
		}
	}
	return base
}

// identify returns the name and version of a library. The name it is found by is
// true, as far as it goes; the file's own and its SONAME may know more of the same.
func identify(found string, others ...string) (library.Name, bool) {
	name, ok := library.ParseName(found)
	for _, other := range others {
		more, known := library.ParseName(other)
		if ok && known && purposeOf(more.Base) == purposeOf(name.Base) && name.Version.Begins(more.Version) {
			name.Version = more.Version
		}
	}
	return name, ok
}

// verdict tells whether a library of the host may take the place of an image's.
type verdict int

const (
	fits verdict = iota
	doubts
	refuses
)

// compare compares versions of libraries. libtool makes the first number another
// when the ABI is another, and the second larger when there is more of it.
func compare(check string, host, image library.Version) (v verdict, why string) {
	if check == "" {
		check = config.MPIChecks[0]
	}
	switch {
	case len(host) == 0 || len(image) == 0:
		return refuses, "the ABI of one of them is not known"
	case host[0] != image[0]:
		return refuses, fmt.Sprintf("their ABIs are %d and %d", host[0], image[0])
	case len(host) == 1 || len(image) == 1:
		if check == "strict" {
			return refuses, `the second number of one of them is not known, and the site wants it to be the same (check = "strict")`
		}
		if check == "full" {
			return doubts, "which is older is not known"
		}
		return fits, ""
	case check == "strict" && host[1] != image[1]:
		return refuses, fmt.Sprintf(`their versions are %d.%d and %d.%d, and the site wants them to be the same (check = "strict")`, host[0], host[1], image[0], image[1])
	case host[1] >= image[1]:
		return fits, ""
	case check == "full":
		return refuses, `the host's is older, which the site does not allow (check = "full")`
	}
	return doubts, "the host's is older and may lack what the program needs"
}

// gnu are the libraries of the GNU C library, which must be those of the image's
// loader.
var gnu = []string{
	"libc", "libm", "libmvec", "libpthread", "libdl", "librt", "libutil", "libresolv", "libanl",
	"ld-linux-x86-64", "ld-linux-aarch64", "ld-linux-riscv64-lp64d",
}

func isGNU(name string) bool {
	base, _, _ := strings.Cut(name, ".so")
	return slices.Contains(gnu, base)
}

// missing returns the newest of the required versions that are not defined, or "".
func missing(required, defined []string) string {
	var lacking []string
	for _, version := range required {
		if !slices.Contains(defined, version) {
			lacking = append(lacking, version)
		}
	}
	return newest(lacking, "")
}

// newest returns the newest of versions such as GLIBC_2.36 that are of the same
// kind as like, or of any.
func newest(versions []string, like string) string {
	kind, _, _ := strings.Cut(like, "_")
	best, bestVersion := "", library.Version{}
	for _, text := range versions {
		of, number, _ := strings.Cut(text, "_")
		// The rest of a library's name is written like that, too.
		n, ok := library.ParseName("v.so." + number)
		if ok && (like == "" || of == kind) && slices.Compare(n.Version, bestVersion) >= 0 {
			best, bestVersion = text, n.Version
		}
	}
	if best == "" && len(versions) > 0 && like == "" {
		return versions[0]
	}
	return best
}
