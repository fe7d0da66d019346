// SPDX-License-Identifier: Apache-2.0

package account

import (
	"fmt"
	"os/user"
	"strconv"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// LookUp asks the node's name services (nsswitch.conf(5)) about a user with the
// given groups. The numbers are the caller's; a group that the node does not
// know is left out.
func LookUp(uid, gid uint32, groups []uint32) (User, []Group, error) {
	u, err := user.LookupId(number(uid))
	if err != nil {
		return User{}, nil, fault.WithHint(fmt.Errorf("find user %d on this node: %w", uid, err),
			"the administrator must give the node the same accounts as the cluster")
	}
	var known []Group
	for _, id := range append([]uint32{gid}, groups...) {
		if g, err := user.LookupGroupId(number(id)); err == nil {
			known = append(known, Group{Name: g.Name, GID: id})
		}
	}
	// The shell is the one that images have.
	return User{Name: u.Username, UID: uid, GID: gid, Gecos: u.Name, Home: u.HomeDir, Shell: "/bin/sh"}, known, nil
}

func number(id uint32) string { return strconv.FormatUint(uint64(id), 10) }
