// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"os/user"
	"strconv"

	"github.com/brolga-hpc/brolga/pkg/bundle/account"
	"github.com/brolga-hpc/brolga/pkg/fault"
	"github.com/brolga-hpc/brolga/pkg/identity"
	"github.com/brolga-hpc/brolga/pkg/request"
)

// owner is the job's user as the node knows them.
type owner struct {
	User    identity.User
	account account.User
	groups  []account.Group
}

// lookUp asks the node's name services about the user and groups of the job.
// Numbers are Slurm's; names of groups that the node does not know are left
// out.
func lookUp(r request.Request) (*owner, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(r.UID), 10))
	if err != nil {
		return nil, fault.WithHint(fmt.Errorf("find user %d on this node: %w", r.UID, err),
			"the administrator must give the node the same accounts as the cluster")
	}
	o := &owner{
		User: identity.User{UID: r.UID, GID: r.GID, Groups: r.Groups, Name: u.Username, Home: u.HomeDir},
		account: account.User{
			Name: u.Username, UID: r.UID, GID: r.GID, Gecos: u.Name, Home: u.HomeDir,
			Shell: "/bin/sh", // the one that images have
		},
	}
	for _, gid := range append([]uint32{r.GID}, r.Groups...) {
		g, err := user.LookupGroupId(strconv.FormatUint(uint64(gid), 10))
		if err == nil {
			o.groups = append(o.groups, account.Group{Name: g.Name, GID: gid})
		}
	}
	return o, nil
}
