// SPDX-License-Identifier: Apache-2.0

// Package account makes the /etc/passwd and /etc/group of a container, so that
// the job's user has the same name, home and groups there as on the host,
// whatever directory service the host takes them from.
//
// The image's own accounts stay, because its files belong to them, except those
// that contradict the user's: same number or same name.
package account

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/brolga-hpc/brolga/pkg/identity"
)

// Group is one group as the host knows it.
type Group struct {
	Name string
	GID  uint32
}

// Passwd returns the image's passwd(5) file with the user in it.
func Passwd(image []byte, u identity.User) []byte {
	line := fmt.Sprintf("%s:x:%d:%d:%s:%s:%s\n", clean(u.Name), u.UID, u.GID, clean(u.Gecos), clean(u.Home), clean(u.Shell))
	return merge(image, []string{line}, map[string]bool{u.Name: true}, map[uint32]bool{u.UID: true})
}

// GroupFile returns the image's group(5) file with the groups in it, of which
// user is a member.
func GroupFile(image []byte, groups []Group, user string) []byte {
	var lines []string
	names, ids := map[string]bool{}, map[uint32]bool{}
	for _, g := range groups {
		if ids[g.GID] {
			continue
		}
		names[g.Name], ids[g.GID] = true, true
		lines = append(lines, fmt.Sprintf("%s:x:%d:%s\n", clean(g.Name), g.GID, clean(user)))
	}
	return merge(image, lines, names, ids)
}

// merge puts lines before those of the image that have none of the names and
// numbers; both files have the name first and the number third.
func merge(image []byte, lines []string, names map[string]bool, ids map[uint32]bool) []byte {
	var out bytes.Buffer
	for _, line := range lines {
		out.WriteString(line)
	}
	for line := range bytes.Lines(image) {
		line = bytes.TrimRight(line, "\r\n")
		fields := strings.SplitN(string(line), ":", 5)
		if len(fields) < 4 || names[fields[0]] {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil || ids[uint32(id)] {
			continue
		}
		out.Write(line)
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// clean takes out what would end a field or a line.
func clean(field string) string {
	return strings.Map(func(r rune) rune {
		if r == ':' || r < ' ' {
			return '_'
		}
		return r
	}, field)
}
