// SPDX-License-Identifier: Apache-2.0

package replace

import (
	"fmt"
	"slices"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/config"
	"github.com/brolga-hpc/brolga/pkg/ldso"
)

// Purposes tell what libraries with different names are for, by the first parts of
// their names. One that is in none is its own purpose.
type Purposes struct {
	// Names has the names of each purpose.
	Names map[string][]string
	// Suffixes are what may follow an underscore in such a name.
	Suffixes []string
}

// Of returns the purpose of a library by the first part of its name.
func (p Purposes) Of(base string) string {
	plain, suffix, vendor := strings.Cut(base, "_")
	suffix, _, _ = strings.Cut(suffix, "_")
	if vendor && !slices.Contains(p.Suffixes, suffix) {
		return base
	}
	for purpose, names := range p.Names {
		if slices.Contains(names, plain) {
			return purpose
		}
	}
	return base
}

// Identify returns the name and version of a library. The name it is found by is
// true, as far as it goes; the file's own and its SONAME may know more of the same.
func (p Purposes) Identify(found string, others ...string) (ldso.Name, bool) {
	name, ok := ldso.ParseName(found)
	for _, other := range others {
		more, known := ldso.ParseName(other)
		if ok && known && p.Of(more.Base) == p.Of(name.Base) && name.Version.Begins(more.Version) {
			name.Version = more.Version
		}
	}
	return name, ok
}

// Verdict tells whether a library of the host may take the place of an image's.
type Verdict int

// The values of [Verdict].
const (
	Fits Verdict = iota
	Doubts
	Refuses
)

// Compare compares versions of libraries. libtool makes the first number another
// when the ABI is another, and the second larger when there is more of it.
func Compare(check string, host, image ldso.Version) (v Verdict, why string) {
	if check == "" {
		check = config.MPIChecks[0]
	}
	switch {
	case len(host) == 0 || len(image) == 0:
		return Refuses, "the ABI of one of them is not known"
	case host[0] != image[0]:
		return Refuses, fmt.Sprintf("their ABIs are %d and %d", host[0], image[0])
	case len(host) == 1 || len(image) == 1:
		if check == "strict" {
			return Refuses, `the second number of one of them is not known, and the site wants it to be the same (check = "strict")`
		}
		if check == "full" {
			return Doubts, "which is older is not known"
		}
		return Fits, ""
	case check == "strict" && host[1] != image[1]:
		return Refuses, fmt.Sprintf(`their versions are %d.%d and %d.%d, and the site wants them to be the same (check = "strict")`, host[0], host[1], image[0], image[1])
	case host[1] >= image[1]:
		return Fits, ""
	case check == "full":
		return Refuses, `the host's is older, which the site does not allow (check = "full")`
	}
	return Doubts, "the host's is older and may lack what the program needs"
}

// gnu are the libraries of the GNU C library, which must be those of the image's
// loader.
var gnu = []string{
	"libc", "libm", "libmvec", "libpthread", "libdl", "librt", "libutil", "libresolv", "libanl",
	"ld-linux-x86-64", "ld-linux-aarch64", "ld-linux-riscv64-lp64d",
}

// IsGNU tells whether a library, by its name, is part of the GNU C library.
func IsGNU(name string) bool {
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
	return Newest(lacking, "")
}

// Newest returns the newest of versions such as GLIBC_2.36 that are of the same
// kind as like, or of any.
func Newest(versions []string, like string) string {
	kind, _, _ := strings.Cut(like, "_")
	best, bestVersion := "", ldso.Version{}
	for _, text := range versions {
		of, number, _ := strings.Cut(text, "_")
		// The rest of a library's name is written like that, too.
		n, ok := ldso.ParseName("v.so." + number)
		if ok && (like == "" || of == kind) && slices.Compare(n.Version, bestVersion) >= 0 {
			best, bestVersion = text, n.Version
		}
	}
	if best == "" && len(versions) > 0 && like == "" {
		return versions[0]
	}
	return best
}
