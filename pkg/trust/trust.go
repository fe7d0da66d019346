// SPDX-License-Identifier: Apache-2.0

// Package trust says whether a path is safe to act on with privilege, and opens
// it so that the answer stays true.
package trust

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/budget"
)

// ErrTamperable means that someone other than root could change the file.
var ErrTamperable = errors.New("someone other than root could change it")

// Read returns the content of a file that only root can have written: it and
// all directories above belong to root and nobody else may write to them. A
// "no" wraps [ErrTamperable]; any other error means "could not tell".
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := CheckOpen(f, path); err != nil {
		return nil, err
	}
	text, err := budget.Open(f, maxFile)
	if errors.Is(err, budget.ErrLarge) {
		err = fmt.Errorf("read %s: %w", path, err)
	}
	return text, err
}

// maxFile limits the size in bytes of what [Read] returns: configurations, keys,
// descriptions of hooks, profiles.
const maxFile = 8 << 20

// CheckOpen tells whether the file f, which was opened at path, and all that
// leads to it are root's alone.
//
// The file is opened before it is checked. Directories are checked by name, but
// once one and those above are root's alone, no other user can exchange it.
func CheckOpen(f *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if err := check(path, &st, 0o022, ErrTamperable); err != nil {
		return err
	}
	return Check(path)
}

// maxLinks is the number of symbolic links after which the kernel gives up, too
// (path_resolution(7)).
const maxLinks = 40

// Check tells whether the file at path, an absolute one, and all that leads to
// it are root's alone: directories, and symbolic links, which are followed.
func Check(path string) error { return checkWay(path, 0, ErrTamperable) }

// CheckOf is Check where files may belong to one other user, of that name, too.
func CheckOf(path string, owner uint32, name string) error {
	return checkWay(path, owner, tamperableError(name))
}

// tamperableError is ErrTamperable for what belongs to the user of that name.
type tamperableError string

func (e tamperableError) Error() string {
	return fmt.Sprintf("someone other than root and %s could change it", string(e))
}

// Is makes it ErrTamperable.
func (tamperableError) Is(target error) bool { return target == ErrTamperable }

// MakeAll makes a directory and those above it that are missing. All of them must be
// root's alone then. Nothing is made below one that is not. Identity: root.
func MakeAll(path string, perm os.FileMode) error {
	parent := filepath.Dir(path)
	if parent == path {
		return nil
	}
	if err := MakeAll(parent, perm); err != nil {
		return err
	}
	err := os.Mkdir(path, perm)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return Check(path)
}

func checkWay(path string, owner uint32, tamperable error) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("check %q: not an absolute path", path)
	}
	links := 0
	at, rest := "/", append([]string{"."}, names(path)...)
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0]) // at has no links: ".." is its parent
		rest = rest[1:]
		isLink, err := checkOne(next, owner, tamperable)
		if err != nil {
			return err
		}
		if !isLink {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return fmt.Errorf("check %s: %w", path, unix.ELOOP)
		}
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(names(target), rest...)
	}
	return nil
}

func names(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// checkOne checks one file, directory or link, which stands in a directory that
// was checked.
func checkOne(path string, owner uint32, tamperable error) (isLink bool, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return false, fmt.Errorf("stat %s: %w", path, err)
	}
	writable := uint32(0o022)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		isLink, writable = true, 0 // nobody can write to a link
	case unix.S_IFDIR:
		if st.Mode&unix.S_ISVTX != 0 {
			writable = 0 // what root owns there cannot be exchanged by others
		}
	}
	if st.Uid == owner && st.Mode&writable == 0 {
		return isLink, nil
	}
	return isLink, check(path, &st, writable, tamperable)
}

// unmapped is the number that files of users have who do not exist in the user
// namespace (user_namespaces(7); it is the kernel's default).
const unmapped = 65534

// isRoot tells whether a file is root's. In a user namespace of a user's own, that
// is of nobody who exists there: who asks there has no privilege, and has looked
// before, where root was root ("brolga run").
func isRoot(uid uint32) bool {
	if uid == 0 {
		return true
	}
	if uid != unmapped {
		return false
	}
	users, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && mapsOne(string(users))
}

// mapsOne tells whether a map of users has one user, who is not the host's root.
func mapsOne(users string) bool {
	fields := strings.Fields(users)
	return len(fields) == 3 && fields[1] != "0" && fields[2] == "1"
}

func check(path string, st *unix.Stat_t, writable uint32, tamperable error) error {
	if !isRoot(st.Uid) || st.Mode&writable != 0 {
		return fmt.Errorf("%s (owner %d, mode %04o): %w", path, st.Uid, st.Mode&0o7777, tamperable)
	}
	return nil
}
