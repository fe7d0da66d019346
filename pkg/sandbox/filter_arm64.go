// SPDX-License-Identifier: Apache-2.0

package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// forbiddenHere are system calls that other machines do not have: none.
var forbiddenHere []uint32

// otherABI refuses further kinds of system calls: there are none.
var otherABI []unix.SockFilter
