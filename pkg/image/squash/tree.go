// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"archive/tar"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
)

const (
	whiteout = ".wh."         // in front of a name: hides it in lower layers
	opaque   = ".wh..wh..opq" // hides all that lower layers have in the directory
	internal = ".wh..wh."     // other names of AUFS, without meaning here
	maxPath  = 4095           // as Linux has it
	maxName  = 255            // likewise
	dirMode  = 0o755          // of a directory that only its content mentions
)

// entry is one member of a layer's tar file.
type entry struct {
	file
	name  string // clean, relative to the root; "" is the root itself
	link  string // clean target of a hard link
	index int    // place in the tar file, from zero
	sent  bool   // its content has been written under its name
}

// file is what is kept of a tar header. Its kind is a type flag of package tar,
// or kindWhiteout.
type file struct {
	kind     byte
	mode     uint16
	uid, gid uint32
	mtime    uint32
	size     int64
	target   string            // of a symbolic link
	attrs    map[string]string // PAX records of extended attributes
}

const kindWhiteout = 'w'

func (f *file) isDir() bool { return f.kind == tar.TypeDir }

// node is a file of the image. Hard links are several names of one node.
type node struct {
	file
	layer, index int              // where its content is
	children     map[string]*node // of a directory
	path         string           // the name that it has been written under
}

// tree is the file system that layers add up to.
type tree struct{ root *node }

func newTree() *tree { return &tree{newDir(-1)} }

// newDir returns a directory that no layer describes.
func newDir(layer int) *node {
	return &node{file: file{kind: tar.TypeDir, mode: dirMode}, layer: layer, index: -1, children: map[string]*node{}}
}

// apply puts a layer on top of the tree.
//
// Whiteouts come first, whatever their place in the layer, because they are
// about lower layers only.
func (t *tree) apply(layer int, entries []entry) error {
	for _, e := range entries {
		if e.kind == kindWhiteout {
			t.hide(e.name)
		}
	}
	for _, e := range entries {
		if e.kind == kindWhiteout {
			continue
		}
		if err := t.add(layer, e); err != nil {
			return err
		}
	}
	return nil
}

// hide applies the whiteout with the given name.
func (t *tree) hide(name string) {
	dir, base := path.Split(name)
	parent := t.lookup(strings.TrimSuffix(dir, "/"))
	switch {
	case parent == nil || !parent.isDir():
	case base == opaque:
		clear(parent.children)
	default:
		delete(parent.children, strings.TrimPrefix(base, whiteout))
	}
}

// lookup returns the node with a name, without following symbolic links, or
// nil.
func (t *tree) lookup(name string) *node {
	n := t.root
	for part := range parts(name) {
		if n = n.children[part]; n == nil {
			return nil
		}
	}
	return n
}

// parts yields the parts of a clean relative name.
func parts(name string) iter.Seq[string] {
	if name == "" {
		return func(func(string) bool) {}
	}
	return strings.SplitSeq(name, "/")
}

// add adds one entry of a layer.
func (t *tree) add(layer int, e entry) error {
	if e.name == "" { // the root, which is a directory
		t.root.file, t.root.layer, t.root.index = e.file, layer, e.index
		return nil
	}
	dir, base := path.Split(e.name)
	parent, err := t.parent(layer, strings.TrimSuffix(dir, "/"), true)
	if err != nil {
		return err
	}
	n := &node{file: e.file, layer: layer, index: e.index}
	if e.sent {
		n.path = e.name
	}
	switch e.kind {
	case tar.TypeLink:
		if n, err = t.target(layer, e); err != nil {
			return err
		}
	case tar.TypeDir:
		n.children = map[string]*node{}
		if old := parent.children[base]; old != nil && old.isDir() {
			n.children = old.children
		}
	}
	parent.children[base] = n
	return nil
}

// target returns the node that a hard link names.
func (t *tree) target(layer int, e entry) (*node, error) {
	dir, base := path.Split(e.link)
	parent, err := t.parent(layer, strings.TrimSuffix(dir, "/"), false)
	if err != nil {
		return nil, err
	}
	if parent == nil || parent.children[base] == nil {
		return nil, fmt.Errorf("hard link %q: there is no %q", e.name, e.link)
	}
	n := parent.children[base]
	if n.isDir() {
		return nil, fmt.Errorf("hard link %q: %q is a directory", e.name, e.link)
	}
	return n, nil
}

// parent returns the directory with a name. Where a part of it is missing, it
// is made, or the result is nil.
//
// Symbolic links on the way are followed, within the image. But where
// directories may be made, a link of a lower layer is replaced by one: so do
// runtimes that unpack each layer by itself, which are most of them.
func (t *tree) parent(layer int, name string, make bool) (*node, error) {
	followed := 0
	dirs := []*node{t.root} // from the root to where we are
	todo := slices.Collect(parts(name))
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			dirs = dirs[:max(len(dirs)-1, 1)]
			continue
		}
		here := dirs[len(dirs)-1]
		next := here.children[part]
		switch {
		case next != nil && next.isDir():
		case next != nil && next.kind == tar.TypeSymlink && (next.layer == layer || !make):
			if followed++; followed > 40 {
				return nil, fmt.Errorf("%q: too many symbolic links", name)
			}
			if path.IsAbs(next.target) {
				dirs = dirs[:1]
			}
			todo = append(strings.Split(next.target, "/"), todo...)
			continue
		case !make:
			return nil, nil
		default:
			if len(part) > maxName {
				return nil, fmt.Errorf("%.40q...: part of the name is longer than %d bytes", part, maxName)
			}
			next = newDir(layer)
			here.children[part] = next
		}
		if dirs = append(dirs, next); len(dirs) > maxPath/2 {
			return nil, fmt.Errorf("%.40q...: too many directories in one another", name)
		}
	}
	return dirs[len(dirs)-1], nil
}

// has says whether the content of all files of the tree has been written, each
// under a name that it has, and no others: count is how many were written.
func (t *tree) has(count int) bool {
	for name, n := range t.walk() {
		switch {
		case n.size == 0:
		case n.path == name:
			count--
		case n.path == "" || t.lookup(n.path) != n:
			return false
		}
	}
	return count == 0
}

// walk yields every name of the tree, sorted, directories before their content,
// without the root.
func (t *tree) walk() iter.Seq2[string, *node] {
	return func(yield func(string, *node) bool) { walk("", t.root, yield) }
}

func walk(prefix string, dir *node, yield func(string, *node) bool) bool {
	for _, base := range slices.Sorted(maps.Keys(dir.children)) {
		n := dir.children[base]
		name := prefix + base
		if !yield(name, n) || (n.isDir() && !walk(name+"/", n, yield)) {
			return false
		}
	}
	return true
}
