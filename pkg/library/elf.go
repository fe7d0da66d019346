// SPDX-License-Identifier: Apache-2.0

package library

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
)

// Object is what the loader needs to know of a shared library.
type Object struct {
	// Soname is the name that programs linked with it ask for, or "".
	Soname string
	// Needed are the names of the libraries it needs.
	Needed []string
	// Requires has the versions of symbols that it needs, by library, Defines
	// those that it has.
	Requires map[string][]string
	Defines  []string
}

// ErrForeign means that a file is no library for this kind of machine.
var ErrForeign = errors.New("not a library for this machine")

// Limits of what is read of a library. MPI libraries have a hundredth.
const (
	maxSegments = 256
	maxTable    = 8 << 20
	maxRecords  = 4096
)

// machines are the ELF machines of the architectures that Go names.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}

// pages reads a file in large pieces and keeps them: versions are many small
// records.
type pages struct {
	file io.ReaderAt
	kept map[int64][]byte
}

const pageSize = 32 << 10

func (p pages) ReadAt(into []byte, at int64) (int, error) {
	if len(into) > pageSize {
		return p.file.ReadAt(into, at)
	}
	n := 0
	for n < len(into) {
		page, err := p.page((at + int64(n)) / pageSize)
		offset := (at + int64(n)) % pageSize
		if err != nil || offset >= int64(len(page)) {
			return n, errors.Join(io.EOF, err)
		}
		n += copy(into[n:], page[offset:])
	}
	return n, nil
}

func (p pages) page(number int64) ([]byte, error) {
	page, known := p.kept[number]
	if known {
		return page, nil
	}
	page = make([]byte, pageSize)
	n, err := p.file.ReadAt(page, number*pageSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	p.kept[number] = page[:n]
	return page[:n], nil
}

// object is a library that is being read.
type object struct {
	file     io.ReaderAt
	segments []elf.Prog64
	// entries has the entries of the dynamic section, less DT_NEEDED, which are
	// in needed.
	entries map[elf.DynTag]uint64
	needed  []uint64
	strings []byte
}

// Read reads a library. The error wraps [ErrForeign] if it is none, or one for
// another machine.
func Read(file io.ReaderAt) (Object, error) {
	o, err := open(file)
	if err != nil {
		return Object{}, err
	}
	result := Object{Soname: o.soname(), Requires: map[string][]string{}}
	for _, at := range o.needed {
		result.Needed = append(result.Needed, o.text(at))
	}
	if err := o.readRequired(result.Requires); err != nil {
		return Object{}, err
	}
	result.Defines, err = o.readDefined()
	return result, err
}

// Soname reads the name alone that programs linked with a library ask for, or "".
func Soname(file io.ReaderAt) (string, error) {
	o, err := open(file)
	if err != nil {
		return "", err
	}
	return o.soname(), nil
}

func open(file io.ReaderAt) (*object, error) {
	o := &object{file: pages{file, map[int64][]byte{}}, entries: map[elf.DynTag]uint64{}}
	for _, read := range []func() error{o.readSegments, o.readDynamic, o.readStrings} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *object) soname() string {
	if at, ok := o.entries[elf.DT_SONAME]; ok {
		return o.text(at)
	}
	return ""
}

// Check tells whether a file is a library for this machine, by its header alone.
// The error wraps [ErrForeign].
func Check(file io.ReaderAt) error {
	o := object{file: file}
	_, err := o.readHeader()
	return err
}

func (o *object) readHeader() (header elf.Header64, err error) {
	if err := o.readStruct(0, &header); err != nil {
		return header, fmt.Errorf("%w: it has no ELF header", ErrForeign)
	}
	const ident = elf.ELFMAG + string(rune(elf.ELFCLASS64)) + string(rune(elf.ELFDATA2LSB))
	if string(header.Ident[:len(ident)]) != ident || elf.Type(header.Type) != elf.ET_DYN ||
		elf.Machine(header.Machine) != machines[runtime.GOARCH] {
		return header, ErrForeign
	}
	return header, nil
}

// readSegments reads the program headers (elf(5)).
func (o *object) readSegments() error {
	header, err := o.readHeader()
	if err != nil {
		return err
	}
	if header.Phnum > maxSegments {
		return errors.New("too many segments")
	}
	o.segments = make([]elf.Prog64, header.Phnum)
	return o.readStruct(header.Phoff, o.segments)
}

func (o *object) readDynamic() error {
	for _, s := range o.segments {
		if elf.ProgType(s.Type) != elf.PT_DYNAMIC {
			continue
		}
		section, err := o.read(s.Off, s.Filesz)
		if err != nil {
			return fmt.Errorf("read the dynamic section: %w", err)
		}
		for ; len(section) >= 16; section = section[16:] {
			tag, value := elf.DynTag(binary.LittleEndian.Uint64(section)), binary.LittleEndian.Uint64(section[8:])
			switch {
			case tag == elf.DT_NULL:
				return nil
			case tag == elf.DT_NEEDED && len(o.needed) < maxRecords:
				o.needed = append(o.needed, value)
			default:
				o.entries[tag] = value
			}
		}
		return nil
	}
	return fmt.Errorf("%w: it has no dynamic section", ErrForeign)
}

func (o *object) readStrings() (err error) {
	if o.strings, err = o.readAddress(o.entries[elf.DT_STRTAB], o.entries[elf.DT_STRSZ]); err != nil {
		return fmt.Errorf("read the string table: %w", err)
	}
	return nil
}

// readRequired reads what DT_VERNEED describes: a chain of libraries, each with a
// chain of versions. Links are relative and zero at the end.
func (o *object) readRequired(into map[string][]string) error {
	address, ok := o.entries[elf.DT_VERNEED]
	if !ok {
		return nil
	}
	for records := 0; ; {
		record, err := o.readAddress(address, 16)
		if err != nil {
			return fmt.Errorf("read the versions it needs: %w", err)
		}
		library := o.text(uint64(binary.LittleEndian.Uint32(record[4:])))
		version := address + uint64(binary.LittleEndian.Uint32(record[8:]))
		for range binary.LittleEndian.Uint16(record[2:]) {
			aux, err := o.readAddress(version, 16)
			if records++; err != nil || records > maxRecords {
				return errors.Join(errors.New("read the versions it needs"), err)
			}
			// A weak reference is none (VER_FLG_WEAK).
			if binary.LittleEndian.Uint16(aux[4:])&2 == 0 {
				into[library] = append(into[library], o.text(uint64(binary.LittleEndian.Uint32(aux[8:]))))
			}
			version += uint64(binary.LittleEndian.Uint32(aux[12:]))
		}
		next := binary.LittleEndian.Uint32(record[12:])
		if records++; next == 0 || records > maxRecords {
			return nil
		}
		address += uint64(next)
	}
}

// readDefined reads what DT_VERDEF describes, in the same way. The first name of
// each record is its own.
func (o *object) readDefined() (all []string, err error) {
	address, ok := o.entries[elf.DT_VERDEF]
	for ok && len(all) < maxRecords {
		record, err := o.readAddress(address, 20)
		if err != nil {
			return nil, fmt.Errorf("read the versions it has: %w", err)
		}
		aux, err := o.readAddress(address+uint64(binary.LittleEndian.Uint32(record[12:])), 8)
		if err != nil {
			return nil, fmt.Errorf("read the versions it has: %w", err)
		}
		all = append(all, o.text(uint64(binary.LittleEndian.Uint32(aux))))
		next := binary.LittleEndian.Uint32(record[16:])
		address, ok = address+uint64(next), next != 0
	}
	return all, nil
}

// readAddress reads at an address of the loaded library.
func (o *object) readAddress(address, size uint64) ([]byte, error) {
	for _, s := range o.segments {
		if elf.ProgType(s.Type) == elf.PT_LOAD && address >= s.Vaddr && address-s.Vaddr < s.Filesz && size <= s.Filesz-(address-s.Vaddr) {
			return o.read(s.Off+(address-s.Vaddr), size)
		}
	}
	return nil, errors.New("it is outside the file")
}

func (o *object) read(at, size uint64) ([]byte, error) {
	if size > maxTable || at+size < at || int64(at+size) < 0 {
		return nil, errors.New("it is too large")
	}
	content := make([]byte, size)
	n, err := o.file.ReadAt(content, int64(at))
	if uint64(n) < size {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return content, nil
}

func (o *object) readStruct(at uint64, into any) error {
	content, err := o.read(at, uint64(binary.Size(into)))
	if err != nil {
		return err
	}
	_, err = binary.Decode(content, binary.LittleEndian, into)
	return err
}

// text returns a string of the library.
func (o *object) text(at uint64) string {
	if at > uint64(len(o.strings)) {
		return ""
	}
	return text(o.strings, uint32(at))
}
