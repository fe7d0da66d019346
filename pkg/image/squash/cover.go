// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"path"
	"strings"
)

// cover knows, by name, what upper layers hide of lower ones.
//
// It takes names as they are: links on the way are not followed, and of hard
// links only the name counts. So it may be wrong for odd images; the tree, which
// is built when all layers have been read, is not.
type cover map[string]covering

type covering byte

const (
	directory covering = iota + 1 // takes the place of a file
	emptied                       // and hides what is in it
	replaced                      // the name and all below it
)

// add adds an entry of a layer.
func (c cover) add(e entry) {
	dir, base := cutLast(e.name)
	switch {
	case e.kind == kindWhiteout && base == opaque:
		c.set(dir, emptied)
		return
	case e.kind == kindWhiteout:
		c.set(path.Join(dir, strings.TrimPrefix(base, whiteout)), replaced)
		return
	}
	for ; dir != "" && c[dir] == 0; dir, _ = cutLast(dir) {
		c[dir] = directory
	}
	if e.isDir() {
		c.set(e.name, directory)
	} else {
		c.set(e.name, replaced)
	}
}

func (c cover) set(name string, what covering) { c[name] = max(c[name], what) }

// hides says whether a file with that name in a lower layer cannot be seen.
func (c cover) hides(name string) bool {
	if c[name] != 0 || c[""] == emptied {
		return true
	}
	for dir, _ := cutLast(name); dir != ""; dir, _ = cutLast(dir) {
		if c[dir] > directory {
			return true
		}
	}
	return false
}

// cutLast splits a clean name before its last part.
func cutLast(name string) (dir, base string) {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)], name[i+1:]
}
