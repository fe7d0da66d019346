// SPDX-License-Identifier: Apache-2.0

package ldso

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/budget"
)

// libraryOfThisMachine returns a library of the C library's.
func libraryOfThisMachine(t testing.TB, name string) []byte {
	t.Helper()
	for _, pattern := range []string{"/lib/*-linux-gnu/", "/lib64/"} {
		paths, _ := filepath.Glob(pattern + name)
		for _, path := range paths {
			if content, err := os.ReadFile(path); err == nil {
				return content
			}
		}
	}
	t.Skipf("needs %s", name)
	return nil
}

// TestRead compares with package debug/elf, which is for files that can be trusted.
func TestRead(t *testing.T) {
	for _, name := range []string{"libc.so.6", "libm.so.6", "libdl.so.2", "libgcc_s.so.1", "libstdc++.so.6"} {
		t.Run(name, func(t *testing.T) {
			content := libraryOfThisMachine(t, name)
			f, err := elf.NewFile(bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			want := Object{Soname: name, Requires: map[string][]string{}}
			want.Needed, _ = f.ImportedLibraries()
			needs, _ := f.DynamicVersionNeeds()
			for _, n := range needs {
				for _, v := range n.Needs {
					want.Requires[n.Name] = append(want.Requires[n.Name], v.Dep)
				}
			}
			versions, _ := f.DynamicVersions()
			for _, v := range versions {
				want.Defines = append(want.Defines, v.Name)
			}
			got, err := Read(bytes.NewReader(content))
			if err = errors.Join(err, Check(bytes.NewReader(content))); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("Read = %+v, %v; want %+v", got, err, want)
			}
			if got, err := Soname(bytes.NewReader(content)); err != nil || got != name {
				t.Errorf("Soname = %q, %v; want %q", got, err, name)
			}
		})
	}
	if got, err := Soname(bytes.NewReader([]byte("#!/bin/sh"))); !errors.Is(err, ErrForeign) {
		t.Errorf("Soname of a script = %q, %v; want ErrForeign", got, err)
	}
}

// TestReadLeavesOutWeakVersions makes the first version that a library needs one
// that the loader does not insist on.
func TestReadLeavesOutWeakVersions(t *testing.T) {
	content := libraryOfThisMachine(t, "libdl.so.2")
	before, err := Read(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	needs := f.Section(".gnu.version_r")
	aux := needs.Offset + uint64(binary.LittleEndian.Uint32(content[needs.Offset+8:]))
	binary.LittleEndian.PutUint16(content[aux+4:], 2) // VER_FLG_WEAK
	after, err := Read(bytes.NewReader(content))
	if err != nil || len(after.Requires["libc.so.6"]) != len(before.Requires["libc.so.6"])-1 {
		t.Errorf("Read requires %v, %v; want one less than %v", after.Requires, err, before.Requires)
	}
}

func TestReadRefuses(t *testing.T) {
	good := libraryOfThisMachine(t, "libdl.so.2")
	dynamic := findDynamic(t, good)
	change := func(at int, with ...byte) []byte {
		other := slices.Clone(good)
		copy(other[at:], with)
		return other
	}
	for _, tt := range []struct {
		name    string
		in      []byte
		foreign bool
	}{
		{"nothing", nil, true},
		{"a script", []byte("#!/bin/sh\necho a script that is long enough to have a header of ELF's"), true},
		{"another class", change(elf.EI_CLASS, byte(elf.ELFCLASS32)), true},
		{"another byte order", change(elf.EI_DATA, byte(elf.ELFDATA2MSB)), true},
		{"another machine", change(18, byte(elf.EM_S390)), true},
		{"an object file", change(16, byte(elf.ET_REL)), true},
		{"only a header", good[:64], false},
		{"segments elsewhere", change(32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), false},
		{"too many segments", change(56, 0xff, 0xff), false},
		{"no segments", change(56, 0, 0), true},
		{"a dynamic section that is cut off", good[:dynamic+8], false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(bytes.NewReader(tt.in))
			if err == nil || errors.Is(err, ErrForeign) != tt.foreign {
				t.Errorf("Read = %+v, %v; want an error, foreign %v", got, err, tt.foreign)
			}
			if err := Check(bytes.NewReader(tt.in)); err != nil && !tt.foreign {
				t.Errorf("Check = %v; want nil", err)
			}
		})
	}
}

// findDynamic returns where the dynamic section is.
func findDynamic(t *testing.T, library []byte) int {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(library))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.Progs {
		if s.Type == elf.PT_DYNAMIC {
			return int(s.Off)
		}
	}
	t.Fatal("no dynamic section")
	return 0
}

// TestReadEnds reads chains of versions that are longer than any library's.
func TestReadEnds(t *testing.T) {
	got, err := Read(bytes.NewReader(endlessLibrary(4096)))
	if err != nil || len(got.Defines) != maxRecords {
		t.Errorf("Read found %d versions, %v; want no more than %d", len(got.Defines), err, maxRecords)
	}
	if got, err := Read(bytes.NewReader(endlessLibrary(1024))); err == nil {
		t.Errorf("Read = %d required versions; want an error", len(got.Requires))
	}
}

// endlessLibrary is a library whose versions are a chain with a link in every
// fourth byte. At required, 1024 has a record of as many versions as can be said,
// all in one place, and 4096 one of none.
func endlessLibrary(required uint64) []byte {
	machine := machines[runtime.GOARCH]
	header := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(machine), Phoff: 64, Phnum: 2}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	const dynamicAt, size = 64 + 2*56, 1 << 16
	tags := []elf.Dyn64{
		{Tag: int64(elf.DT_STRTAB), Val: 0}, {Tag: int64(elf.DT_STRSZ), Val: 64}, {Tag: int64(elf.DT_SONAME), Val: 1},
		{Tag: int64(elf.DT_VERNEED), Val: required}, {Tag: int64(elf.DT_VERDEF), Val: 4096}, {},
	}
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, header)
	_ = binary.Write(&b, binary.LittleEndian, []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Filesz: size},
		{Type: uint32(elf.PT_DYNAMIC), Off: dynamicAt, Filesz: uint64(len(tags)) * 16},
	})
	_ = binary.Write(&b, binary.LittleEndian, tags)
	library := append(b.Bytes(), make([]byte, size-b.Len())...)
	binary.LittleEndian.PutUint16(library[1024+2:], 0xffff)
	for at := 4096; at < size; at += 4 {
		binary.LittleEndian.PutUint32(library[at:], 4)
	}
	return library
}

// longLibrary has thousands of versions with one long name, which its table has once.
func longLibrary() []byte {
	library := endlessLibrary(4096)
	const table, name = 32 << 10, 4 // where the chain says that each name is
	binary.LittleEndian.PutUint64(library[64+2*56+8:], table)
	binary.LittleEndian.PutUint64(library[64+2*56+16+8:], 8<<10)
	copy(library[table+name:], strings.Repeat("x", 4000)+"\x00")
	return library
}

// scatteredLibrary is a sparse file whose dynamic section has an entry for each name that
// it needs, each on a page of its own.
type scatteredLibrary struct{ head []byte }

func newScattered() scatteredLibrary {
	head := endlessLibrary(4096)[:64+2*56]
	binary.LittleEndian.PutUint64(head[64+32:], 1<<40) // Filesz of what is loaded
	tags := []elf.Dyn64{{Tag: int64(elf.DT_STRTAB), Val: 0}, {Tag: int64(elf.DT_STRSZ), Val: 1 << 40}}
	for i := range uint64(1000) {
		tags = append(tags, elf.Dyn64{Tag: int64(elf.DT_NEEDED), Val: (i + 2) << 20})
	}
	tags = append(tags, elf.Dyn64{})
	binary.LittleEndian.PutUint64(head[64+56+32:], uint64(len(tags))*16)
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, tags)
	return scatteredLibrary{append(head, b.Bytes()...)}
}

func (s scatteredLibrary) ReadAt(p []byte, at int64) (int, error) {
	clear(p)
	if at < int64(len(s.head)) {
		copy(p, s.head[at:])
	}
	return len(p), nil
}

// TestReadIsCheap checks that a file of a few KiB cannot stand for much memory.
func TestReadIsCheap(t *testing.T) {
	for name, file := range map[string]io.ReaderAt{
		"long names": bytes.NewReader(longLibrary()), "many pages": newScattered(), "no end": bytes.NewReader(endlessLibrary(4096)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := Read(file)
		runtime.ReadMemStats(&after)
		if (err == nil) != (name == "no end") || err != nil && !errors.Is(err, budget.ErrLarge) {
			t.Errorf("Read of a library with %s = %d needed, %d versions, %v; want that it is too large", name, len(got.Needed), len(got.Defines), err)
		}
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 4<<20 {
			t.Errorf("Read of a library with %s takes %d bytes in all; want at most 4 MiB", name, taken)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(longLibrary())
	f.Add(endlessLibrary(1024))
	f.Add(endlessLibrary(4096))
	f.Add(libraryOfThisMachine(f, "libdl.so.2"))
	f.Fuzz(func(t *testing.T, library []byte) {
		got, _ := Read(bytes.NewReader(library))
		size := len(got.Soname) + len(strings.Join(got.Needed, "")) + len(strings.Join(got.Defines, ""))
		for library, versions := range got.Requires {
			size += len(library) + len(strings.Join(versions, ""))
		}
		if len(got.Needed) > maxRecords || len(got.Defines) > maxRecords || size > maxNames {
			t.Errorf("Read found %d and %d names, %d bytes", len(got.Needed), len(got.Defines), size)
		}
	})
}

func TestParseName(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Name
		ok   bool
	}{
		{"libmpi.so", Name{"libmpi", nil}, true},
		{"libmpi.so.12", Name{"libmpi", Version{12}}, true},
		{"libmpi.so.12.1.8", Name{"libmpi", Version{12, 1, 8}}, true},
		{"libmpi_gnu_91.so.12", Name{"libmpi_gnu_91", Version{12}}, true},
		{"ld-linux-x86-64.so.2", Name{"ld-linux-x86-64", Version{2}}, true},

		{in: ""}, {in: ".so"}, {in: "libmpi.a"}, {in: "libmpi.so."}, {in: "libmpi.so.12."}, {in: "libmpi.so..12"}, {in: "libmpi.solar"},
		{in: "libmpi.so.1a"}, {in: "libmpi.so.-1"}, {in: "libmpi.so.99999999999"}, {in: "libmpi.so.12.py"},
	} {
		got, ok := ParseName(tt.in)
		if ok != tt.ok || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("ParseName(%q) = %v, %v; want %v, %v", tt.in, got, ok, tt.want, tt.ok)
		}
		if ok && got.Version != nil && got.Base+".so."+got.Version.String() != tt.in {
			t.Errorf("ParseName(%q).Version = %s", tt.in, got.Version)
		}
	}
}
