// SPDX-License-Identifier: Apache-2.0

package squash

import (
	"archive/tar"
	"errors"
	"fmt"
	"path"
	"strings"
)

const (
	xattrTag = "SCHILY.xattr." // begins a PAX record that is an extended attribute
	keepAttr = "user."         // begins the attributes that are kept, except for
	overAttr = "user.overlay." // those that overlayfs reads
	maxAttr  = 64 << 10        // bytes of one value, as Linux has it
	maxID    = 1<<32 - 2       // of users and groups
	maxTime  = 1<<32 - 1       // that a squashfs can hold
)

// errSkip means that a member of a tar file is not part of the image.
var errSkip = errors.New("not part of the image")

// newEntry turns a tar header into an entry, or returns errSkip.
func newEntry(hdr *tar.Header, index int) (entry, error) {
	name, err := cleanName(hdr.Name)
	if err != nil {
		return entry{}, err
	}
	e := entry{name: name, index: index}
	for part := range parts(strings.TrimSuffix(path.Dir("/" + name)[1:], "/")) {
		if strings.HasPrefix(part, whiteout) { // nothing can be in what hides
			return entry{}, errSkip
		}
	}
	if base := path.Base(name); strings.HasPrefix(base, whiteout) {
		hidden := strings.TrimPrefix(base, whiteout)
		if base != opaque && (strings.HasPrefix(base, internal) || hidden == "" || hidden == "." || hidden == "..") {
			return entry{}, errSkip
		}
		e.kind = kindWhiteout
		return e, nil
	}
	if hdr.Uid < 0 || hdr.Gid < 0 || hdr.Uid > maxID || hdr.Gid > maxID {
		return entry{}, fmt.Errorf("%q: owner %d:%d is out of range", name, hdr.Uid, hdr.Gid)
	}
	e.file = file{
		kind:  hdr.Typeflag,
		mode:  uint16(hdr.Mode & 0o7777),
		uid:   uint32(hdr.Uid),
		gid:   uint32(hdr.Gid),
		mtime: uint32(min(max(hdr.ModTime.Unix(), 0), maxTime)),
		attrs: attributes(hdr),
	}
	return e, e.setKind(hdr)
}

// setKind completes an entry with what depends on the kind of file.
func (e *entry) setKind(hdr *tar.Header) (err error) {
	switch hdr.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		e.kind, e.size = tar.TypeReg, hdr.Size
	case tar.TypeDir:
		return nil
	case tar.TypeFifo:
	case tar.TypeSymlink:
		if hdr.Linkname == "" || len(hdr.Linkname) > maxPath || strings.Contains(hdr.Linkname, "\x00") {
			return fmt.Errorf("symbolic link %q: bad target", e.name)
		}
		e.target, e.mode = hdr.Linkname, 0o777
	case tar.TypeLink:
		if e.link, err = cleanName(hdr.Linkname); err != nil || e.link == "" {
			return fmt.Errorf("hard link %q: bad target", e.name)
		}
	case tar.TypeChar, tar.TypeBlock: // not kept, but what it replaces is not there either
		if e.name == "" {
			return errSkip
		}
		dir, base := path.Split(e.name)
		e.kind, e.name = kindWhiteout, dir+whiteout+base
	default: // not a file
		return errSkip
	}
	if e.name == "" {
		return errors.New("the root is not a directory")
	}
	return nil
}

// attributes returns the extended attributes that are kept. The others grant
// privilege, which containers do not have, or mean something to the host.
func attributes(hdr *tar.Header) map[string]string {
	var kept map[string]string
	for key, value := range hdr.PAXRecords {
		attr, ok := strings.CutPrefix(key, xattrTag)
		if !ok || !strings.HasPrefix(attr, keepAttr) || strings.HasPrefix(attr, overAttr) ||
			attr == keepAttr || len(attr) > maxName || len(value) > maxAttr {
			continue
		}
		switch hdr.Typeflag {
		case tar.TypeSymlink, tar.TypeFifo, tar.TypeLink: // cannot have them
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[key] = value
	}
	return kept
}

// cleanName returns a tar member's name relative to the root, without . and ..,
// which cannot lead out of the root.
func cleanName(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("a file without a name")
	case strings.Contains(name, "\x00"):
		return "", fmt.Errorf("%q: a zero byte in a name", name)
	case len(name) > maxPath:
		return "", fmt.Errorf("%.40q...: the name is longer than %d bytes", name, maxPath)
	}
	name = path.Clean("/" + name)[1:]
	for part := range parts(name) {
		if len(part) > maxName {
			return "", fmt.Errorf("%.40q...: part of the name is longer than %d bytes", part, maxName)
		}
	}
	return name, nil
}
