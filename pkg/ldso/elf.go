// SPDX-License-Identifier: Apache-2.0

package ldso

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/brolga-hpc/brolga/pkg/budget"
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

// Limits of what is read of a library. Real ones have a tenth at most.
const (
	maxSegments = 256
	// maxRecords limits the entries of the dynamic section, the libraries that it
	// needs, and the versions in either direction.
	maxRecords = 4096
	// maxNames is the size in bytes of all names that are kept of one library.
	maxNames = 64 << 10
	// maxPages is how many pages of pageSize are read of one library.
	maxPages = 64
)

// machines are the ELF machines of the architectures that Go names.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}

// pages reads a file in large pieces and keeps them: tables are many small records.
// The number of pieces is limited, and so is what one library costs.
type pages struct {
	file io.ReaderAt
	kept map[int64][]byte
}

const pageSize = 32 << 10

func (p pages) ReadAt(into []byte, at int64) (int, error) {
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
	if len(p.kept) == maxPages {
		return nil, fmt.Errorf("its tables are %w", budget.Large(maxPages*pageSize))
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
	file     pages
	segments []elf.Prog64
	// entries has the entries of the dynamic section, less DT_NEEDED, which are
	// in needed.
	entries map[elf.DynTag]uint64
	needed  []uint64
	// names is how many bytes of names have been kept.
	names int
}

// Read reads a library. The error wraps [ErrForeign] if it is none, or one for
// another machine.
func Read(file io.ReaderAt) (Object, error) {
	o, err := open(file)
	if err != nil {
		return Object{}, err
	}
	result := Object{Requires: map[string][]string{}}
	if result.Soname, err = o.soname(); err != nil {
		return Object{}, err
	}
	for _, at := range o.needed {
		name, err := o.text(at)
		if err != nil {
			return Object{}, err
		}
		result.Needed = append(result.Needed, name)
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
	return o.soname()
}

func open(file io.ReaderAt) (*object, error) {
	o := &object{file: pages{file, map[int64][]byte{}}, entries: map[elf.DynTag]uint64{}}
	for _, read := range []func() error{o.readSegments, o.readDynamic} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *object) soname() (string, error) {
	if at, ok := o.entries[elf.DT_SONAME]; ok {
		return o.text(at)
	}
	return "", nil
}

// Check reports whether a file is a library for this machine, by its header alone.
// The error wraps [ErrForeign].
func Check(file io.ReaderAt) error {
	o := object{file: pages{file, map[int64][]byte{}}}
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
		return o.readEntries(s.Off, s.Filesz/16)
	}
	return fmt.Errorf("%w: it has no dynamic section", ErrForeign)
}

// readEntries reads the entries of the dynamic section, up to the one that ends it.
func (o *object) readEntries(at, count uint64) error {
	for i := range count {
		entry, err := o.read(at+i*16, 16)
		if err != nil {
			return fmt.Errorf("read the dynamic section: %w", err)
		}
		tag, value := elf.DynTag(binary.LittleEndian.Uint64(entry)), binary.LittleEndian.Uint64(entry[8:])
		switch {
		case tag == elf.DT_NULL:
			return nil
		case i == maxRecords:
			return fmt.Errorf("its dynamic section is %w", budget.Large(maxRecords*16))
		case tag == elf.DT_NEEDED:
			o.needed = append(o.needed, value)
		default:
			o.entries[tag] = value
		}
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
		library, err := o.text(uint64(binary.LittleEndian.Uint32(record[4:])))
		if err != nil {
			return err
		}
		version := address + uint64(binary.LittleEndian.Uint32(record[8:]))
		for range binary.LittleEndian.Uint16(record[2:]) {
			aux, err := o.readAddress(version, 16)
			if records++; err != nil || records > maxRecords {
				return errors.Join(errors.New("read the versions it needs"), err)
			}
			// A weak reference is none (VER_FLG_WEAK).
			if binary.LittleEndian.Uint16(aux[4:])&2 == 0 {
				name, err := o.text(uint64(binary.LittleEndian.Uint32(aux[8:])))
				if err != nil {
					return err
				}
				into[library] = append(into[library], name)
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
		name, err := o.text(uint64(binary.LittleEndian.Uint32(aux)))
		if err != nil {
			return nil, err
		}
		all = append(all, name)
		next := binary.LittleEndian.Uint32(record[16:])
		address, ok = address+uint64(next), next != 0
	}
	return all, nil
}

// readAddress reads at an address of the loaded library. Size is a constant.
func (o *object) readAddress(address, size uint64) ([]byte, error) {
	at, left, ok := o.find(address)
	if !ok || size > left {
		return nil, errors.New("it is outside the file")
	}
	return o.read(at, size)
}

// find returns where in the file an address is, and how many bytes of its segment follow.
func (o *object) find(address uint64) (at, left uint64, ok bool) {
	for _, s := range o.segments {
		if elf.ProgType(s.Type) == elf.PT_LOAD && address >= s.Vaddr && address-s.Vaddr < s.Filesz {
			return s.Off + (address - s.Vaddr), s.Filesz - (address - s.Vaddr), true
		}
	}
	return 0, 0, false
}

func (o *object) read(at, size uint64) ([]byte, error) {
	if at+size < at || int64(at+size) < 0 {
		return nil, errors.New("it is outside the file")
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

// text returns a string of the library, or "" where its table has none there.
func (o *object) text(offset uint64) (string, error) {
	start, size := o.entries[elf.DT_STRTAB], o.entries[elf.DT_STRSZ]
	if offset >= size {
		return "", nil
	}
	at, left, ok := o.find(start + offset)
	if !ok || at+left < at || int64(at+left) < 0 {
		return "", nil
	}
	var all []byte
	for left = min(left, size-offset, maxText); left > 0; {
		piece, err := o.piece(at, left)
		if err != nil {
			return "", fmt.Errorf("read the string table: %w", err)
		}
		end := bytes.IndexByte(piece, 0)
		if end < 0 {
			all = append(all, piece...)
			at, left = at+uint64(len(piece)), left-uint64(len(piece))
			continue
		}
		all = append(all, piece[:end]...)
		if o.names += len(all); o.names > maxNames {
			return "", fmt.Errorf("the names in its tables are %w", budget.Large(maxNames))
		}
		return string(all), nil
	}
	return "", nil
}

// piece returns what one page has of the bytes that follow a position, at least one.
func (o *object) piece(at, left uint64) ([]byte, error) {
	page, err := o.file.page(int64(at) / pageSize)
	if err != nil {
		return nil, err
	}
	offset := at % pageSize
	if offset >= uint64(len(page)) {
		return nil, io.ErrUnexpectedEOF
	}
	page = page[offset:]
	return page[:min(uint64(len(page)), left)], nil
}
