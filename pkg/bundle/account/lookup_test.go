// SPDX-License-Identifier: Apache-2.0

package account

import (
	"os/user"
	"strconv"
	"testing"

	"github.com/brolga-hpc/brolga/pkg/fault"
)

// nobody is a number that no system gives to an account.
const nobody = 4294967294

func TestLookUp(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Skip("the user of the test has no account")
	}
	uid, err := strconv.ParseUint(me.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	u, groups, err := LookUp(uint32(uid), 0, []uint32{0, nobody})
	if err != nil {
		t.Fatal(err)
	}
	if u.Name != me.Username || u.Home != me.HomeDir || u.UID != uint32(uid) || u.GID != 0 || u.Shell != "/bin/sh" {
		t.Errorf("LookUp = %+v; want %s", u, me.Username)
	}
	// Groups that the node does not know are left out.
	if len(groups) != 2 || groups[0] != (Group{"root", 0}) {
		t.Errorf("LookUp = %+v; want root twice", groups)
	}
	if _, _, err := LookUp(nobody, nobody, nil); err == nil || fault.Hint(err) == "" {
		t.Errorf("LookUp of an unknown user = %v; want an error with a hint", err)
	}
}
