// SPDX-License-Identifier: Apache-2.0

// Package ldso reads what the dynamic loader goes by: its cache, the names of
// libraries and their dynamic sections.
//
// Images come from anyone, and this runs with privilege, so nothing of a file is
// believed: sizes and positions are checked and limited, no program is executed,
// and no path is opened here. It knows 64-bit little-endian systems with ELF.
package ldso

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
)

// CachePath is where the loader has its cache.
const CachePath = "/etc/ld.so.cache"

// MaxCache is how large a cache may be, and maxEntries how many libraries are taken of
// it. Those of large systems have a tenth.
const (
	MaxCache   = 4 << 20
	maxEntries = 1 << 15
)

// Entry is a library that the cache knows.
type Entry struct {
	// Name is what programs ask for, Path the file, an absolute path.
	Name, Path string
}

// The formats of the cache (glibc, sysdeps/generic/dl-cache.h). One written for
// old programs, too, has the new format behind the old.
const (
	oldMagic      = "ld.so-1.7.0\x00"
	oldHeaderSize = 16
	oldEntrySize  = 12
	newMagic      = "glibc-ld.so.cache1.1"
	newHeaderSize = 48
	newEntrySize  = 24
)

// ErrCache means that a file is not a cache.
var ErrCache = errors.New("not a cache of the GNU C library")

// kinds are the flags of libraries for the architectures that Go names: of the GNU
// C library 2, for 64 bits (same file, FLAG_*).
var kinds = map[string]uint32{"amd64": 0x0303, "arm64": 0x0a03, "riscv64": 0x1003}

// ParseCache returns the entries for this machine of a cache, in its order. Entries
// that point out of it, or to no absolute path, are left out.
func ParseCache(cache []byte) ([]Entry, error) {
	cache, err := skipOld(cache)
	if err != nil {
		return nil, err
	}
	if len(cache) < newHeaderSize || !bytes.HasPrefix(cache, []byte(newMagic)) {
		return nil, ErrCache
	}
	count := uint64(binary.LittleEndian.Uint32(cache[len(newMagic):]))
	if count > uint64(len(cache)-newHeaderSize)/newEntrySize {
		return nil, fmt.Errorf("%w: it is cut off", ErrCache)
	}
	// Entries share the text: many may name the same part of it.
	table := string(cache)
	var all []Entry
	for i := range min(count, maxEntries) {
		entry := cache[newHeaderSize+i*newEntrySize:]
		if binary.LittleEndian.Uint32(entry) != kinds[runtime.GOARCH] {
			continue
		}
		name := text(table, binary.LittleEndian.Uint32(entry[4:]))
		path := text(table, binary.LittleEndian.Uint32(entry[8:]))
		if name != "" && len(name) <= maxFileName && !strings.Contains(name, "/") && strings.HasPrefix(path, "/") {
			all = append(all, Entry{name, path})
		}
	}
	return all, nil
}

// skipOld returns the part of the cache in the new format.
func skipOld(cache []byte) ([]byte, error) {
	if !bytes.HasPrefix(cache, []byte(oldMagic)) {
		return cache, nil
	}
	if len(cache) < oldHeaderSize {
		return nil, ErrCache
	}
	end := oldHeaderSize + uint64(binary.LittleEndian.Uint32(cache[len(oldMagic):]))*oldEntrySize
	end = (end + 7) &^ 7
	if end > uint64(len(cache)) {
		return nil, fmt.Errorf("%w: it is cut off", ErrCache)
	}
	return cache[end:], nil
}

// maxText is longer than any path, and maxFileName the longest name in a directory
// (PATH_MAX and NAME_MAX, limits.h).
const (
	maxText     = 4096
	maxFileName = 255
)

// text returns the string at a position of the table, as a part of it, or "" if there is
// none.
func text(table string, at uint32) string {
	if uint64(at) >= uint64(len(table)) {
		return ""
	}
	rest := table[at:]
	end := strings.IndexByte(rest[:min(len(rest), maxText)], 0)
	if end < 0 {
		return ""
	}
	return rest[:end]
}
