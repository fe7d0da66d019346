// SPDX-License-Identifier: Apache-2.0

// Package nodecache keeps on a node, for a day, what was found out about an image and
// files of the host, so that the next step of the image need not find it out again.
//
// A cache is a directory of root's with one small file for each key. The caller says which
// files of the host a value depends on. The value is forgotten when one of them has changed,
// appeared or gone (inode, size and times, as stat(2) tells them). All else that it depends
// on belongs into the key. To lose the cache costs time only, and two processes may write the
// same value.
package nodecache

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brolga-hpc/brolga/pkg/safefile"
	"github.com/brolga-hpc/brolga/pkg/trust"
)

const (
	// keep is for how long something is remembered.
	keep = 24 * time.Hour
	// most is how many keys a memory has.
	most = 256
	// largest is the size of what is remembered, more than hooks write.
	largest = 64 << 10
)

// Cache remembers. The zero value remembers nothing.
type Cache struct{ dir string }

// At returns the memory in a directory, which is made when something is kept.
func At(dir string) Cache { return Cache{dir} }

// File is a file of the host as it was.
type File struct {
	Path    string
	Missing bool `json:",omitempty"`
	Device  uint64
	Inode   uint64
	Size    int64
	// Changed and Modified are in nanoseconds.
	Changed, Modified int64
}

// Look describes files, links followed.
func Look(paths []string) []File {
	var all []File
	for _, path := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		all = append(all, look(path))
	}
	return all
}

func look(path string) File {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return File{Path: path, Missing: true}
	}
	return File{
		Path: path, Device: uint64(st.Dev), Inode: st.Ino, Size: st.Size,
		Changed: st.Ctim.Nano(), Modified: st.Mtim.Nano(),
	}
}

// record is the content of a file of the memory.
type record struct {
	Files []File
	Value json.RawMessage
}

// Recall reads what was kept under the key, and tells whether it is still true.
func (m Cache) Recall(key string, into any) bool {
	if m.dir == "" {
		return false
	}
	path := m.path(key)
	st, err := os.Lstat(path)
	if err != nil || time.Since(st.ModTime()) > keep || st.Size() > largest {
		return false
	}
	text, err := trust.Read(path)
	var r record
	if err != nil || json.Unmarshal(text, &r) != nil {
		return false
	}
	for _, f := range r.Files {
		if look(f.Path) != f {
			return false
		}
	}
	return json.Unmarshal(r.Value, into) == nil
}

// Keep remembers a value that is true as long as the files are as they are. They
// must have been looked at before the value was found.
func (m Cache) Keep(key string, value any, files []File) error {
	if m.dir == "" {
		return nil
	}
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	text, err := json.Marshal(record{files, content})
	if err != nil || len(text) > largest {
		return err
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	if err := m.forget(); err != nil {
		return err
	}
	return safefile.Replace(m.path(key), text, 0o600, ".new-")
}

func (m Cache) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(m.dir, hex.EncodeToString(sum[:]))
}

// forget removes what is too old and, where there is too much, the oldest.
func (m Cache) forget() error {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	var known []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // gone meanwhile
			known = append(known, info)
		}
	}
	slices.SortFunc(known, func(a, b fs.FileInfo) int { return cmp.Compare(b.ModTime().UnixNano(), a.ModTime().UnixNano()) })
	for i, info := range known {
		age := time.Since(info.ModTime())
		abandoned := strings.HasPrefix(info.Name(), ".new-") && age > time.Minute
		if i+1 >= most || age > keep || abandoned {
			_ = os.Remove(filepath.Join(m.dir, info.Name())) // another may have done it
		}
	}
	return nil
}
