// SPDX-License-Identifier: Apache-2.0

package ldso

import (
	"strconv"
	"strings"
)

// Name is the name of a library's file taken apart: libmpi.so.12.1.8 has the base
// libmpi and the version 12.1.8.
type Name struct {
	Base    string
	Version Version
}

// Version are the numbers of a library's version, as many as are known.
type Version []int

// ParseName takes a name apart. What follows ".so" and is no version makes it no
// name of a library.
func ParseName(name string) (Name, bool) {
	base, rest, ok := strings.Cut(name, ".so")
	if !ok || base == "" {
		return Name{}, false
	}
	var version Version
	for rest != "" {
		var number string
		if number, ok = strings.CutPrefix(rest, "."); !ok {
			return Name{}, false
		}
		number, _, _ = strings.Cut(number, ".")
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return Name{}, false
		}
		version = append(version, int(n))
		rest = rest[1+len(number):]
	}
	return Name{base, version}, true
}

// String writes the version as in the name of a file.
func (v Version) String() string {
	var parts []string
	for _, n := range v {
		parts = append(parts, strconv.Itoa(n))
	}
	return strings.Join(parts, ".")
}

// Begins tells whether the other version may be the same, known better.
func (v Version) Begins(other Version) bool {
	if len(other) < len(v) {
		return false
	}
	for i, n := range v {
		if other[i] != n {
			return false
		}
	}
	return true
}
