// SPDX-License-Identifier: Apache-2.0

package ldso

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// newCache makes a cache whose entries have these positions of name and path in
// strings, which begin at position at, behind the entries.
func newCache(count uint32, table string, positions ...[2]uint32) (cache []byte, at uint32) {
	cache = append([]byte(newMagic), make([]byte, newHeaderSize-len(newMagic))...)
	binary.LittleEndian.PutUint32(cache[len(newMagic):], count)
	at = uint32(newHeaderSize + newEntrySize*len(positions))
	for _, p := range positions {
		entry := make([]byte, newEntrySize)
		binary.LittleEndian.PutUint32(entry, kinds[runtime.GOARCH])
		binary.LittleEndian.PutUint32(entry[4:], p[0])
		binary.LittleEndian.PutUint32(entry[8:], p[1])
		cache = append(cache, entry...)
	}
	return append(cache, table...), at
}

// cacheOf makes a cache of one entry.
func cacheOf(name, path string) []byte {
	const at = newHeaderSize + newEntrySize
	cache, _ := newCache(1, name+"\x00"+path+"\x00", [2]uint32{at, at + uint32(len(name)) + 1})
	return cache
}

// withOld puts a cache in the old format, of count entries, in front.
func withOld(count uint32, entries int, cache []byte) []byte {
	old := binary.LittleEndian.AppendUint32([]byte(oldMagic), count)
	old = append(old, make([]byte, entries*oldEntrySize)...)
	for len(old)%8 != 0 {
		old = append(old, 0)
	}
	return append(old, cache...)
}

func TestParseCache(t *testing.T) {
	good := cacheOf("liba.so.1", "/lib/liba.so.1")
	entries := []Entry{{"liba.so.1", "/lib/liba.so.1"}}
	tooMany, _ := newCache(2, "a\x00/a\x00", [2]uint32{72, 74})
	huge, _ := newCache(0xffffffff, "a\x00/a\x00", [2]uint32{72, 74})
	outside, _ := newCache(1, "a\x00/a\x00", [2]uint32{72, 0xffffffff})
	foreign := slices.Clone(good)
	foreign[newHeaderSize+1] = 0x20
	endless, at := newCache(1, "a\x00/"+strings.Repeat("x", 10), [2]uint32{72, 74})
	if at != 72 {
		t.Fatalf("strings begin at %d", at)
	}
	for _, tt := range []struct {
		name string
		in   []byte
		want []Entry
		err  error
	}{
		{name: "one library", in: good, want: entries},
		{name: "both formats", in: withOld(3, 3, good), want: entries},
		{name: "no library", in: good[:newHeaderSize:newHeaderSize], err: ErrCache},
		{name: "a library for another machine", in: foreign},
		{name: "a relative path", in: cacheOf("liba.so.1", "lib/liba.so.1")},
		{name: "a path for a name", in: cacheOf("/etc/passwd", "/lib/liba.so.1")},
		{name: "a path that is outside", in: outside},
		{name: "a path that does not end", in: endless},
		{name: "a name that is too long", in: cacheOf(strings.Repeat("x", maxFileName+1), "/a")},
		{name: "a path that is too long", in: cacheOf("a", "/"+strings.Repeat("x", maxText))},

		{name: "nothing", err: ErrCache},
		{name: "another file", in: []byte(strings.Repeat("#!/bin/sh\n", 100)), err: ErrCache},
		{name: "half a header", in: good[:newHeaderSize-1], err: ErrCache},
		{name: "more entries than bytes", in: tooMany, err: ErrCache},
		{name: "as many entries as can be said", in: huge, err: ErrCache},
		{name: "only the old format", in: withOld(1, 1, nil), err: ErrCache},
		{name: "half a header of the old format", in: []byte(oldMagic + "\x01"), err: ErrCache},
		{name: "more old entries than bytes", in: withOld(0xffffffff, 1, good), err: ErrCache},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := ParseCache(tt.in); !errors.Is(err, tt.err) || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("ParseCache = %v, %v; want %v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

// manyEntries is a cache of which each entry names the same long path.
func manyEntries() []byte {
	positions := make([][2]uint32, 2*maxEntries)
	at := uint32(newHeaderSize + newEntrySize*len(positions))
	for i := range positions {
		positions[i] = [2]uint32{at, at + 2}
	}
	cache, _ := newCache(uint32(len(positions)), "a\x00/"+strings.Repeat("x", 4000)+"\x00", positions...)
	return cache
}

// TestParseCacheIsCheap checks that entries which share a text do not multiply it.
func TestParseCacheIsCheap(t *testing.T) {
	cache := manyEntries()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := ParseCache(cache)
	runtime.ReadMemStats(&after)
	if err != nil || len(got) != maxEntries || len(got[0].Path) != 4001 {
		t.Errorf("ParseCache = %d entries, %v; want %d", len(got), err, maxEntries)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 16<<20 {
		t.Errorf("ParseCache takes %d bytes in all; want at most 16 MiB", taken)
	}
}

// TestParseCacheOfThisMachine compares with what ldconfig prints.
func TestParseCacheOfThisMachine(t *testing.T) {
	cache, err := os.ReadFile(CachePath)
	if err != nil {
		t.Skip("needs a system with an ld.so.cache")
	}
	entries, err := ParseCache(cache)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name+" => "+e.Path)
	}
	printed, err := exec.Command("/sbin/ldconfig", "-p").Output()
	if err != nil {
		t.Skip("needs ldconfig")
	}
	kind := map[string]string{"amd64": "x86-64", "arm64": "AArch64"}[runtime.GOARCH]
	var want []string
	for line := range strings.Lines(string(printed)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), " (")
		if _, path, found := strings.Cut(rest, " => "); ok && found && strings.Contains(rest, kind) {
			want = append(want, name+" => "+path)
		}
	}
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("ParseCache finds %d libraries, ldconfig %d, or others", len(got), len(want))
	}
}

func FuzzParseCache(f *testing.F) {
	good := cacheOf("liba.so.1", "/lib/liba.so.1")
	f.Add(good)
	f.Add(withOld(2, 2, good))
	f.Add(withOld(0xffffffff, 1, good))
	f.Fuzz(func(t *testing.T, cache []byte) {
		entries, err := ParseCache(cache)
		if err != nil && len(entries) > 0 {
			t.Errorf("ParseCache = %v and %v", entries, err)
		}
		for _, e := range entries {
			if e.Name == "" || strings.Contains(e.Name, "/") || !strings.HasPrefix(e.Path, "/") {
				t.Errorf("ParseCache found %q at %q", e.Name, e.Path)
			}
		}
	})
}
