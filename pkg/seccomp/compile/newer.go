// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"encoding/binary"
	"runtime"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// architectures are the kernel's numbers (<linux/audit.h>) of those that Go knows.
var architectures = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "ppc64le": unix.AUDIT_ARCH_PPC64LE,
}

// x32 is the bit that distinguishes calls of x32 from those of x86-64.
const x32 = 1 << 30

// offsets in struct seccomp_data (<linux/seccomp.h>).
const offsetNumber, offsetArch = 0, 4

// newer returns instructions to go before the program: calls that are newer than
// the profile fail as they do on an older kernel, which libraries expect, and not as
// if they were forbidden. runc does the same.
func (c *compiler) newer() []byte {
	arch, known := architectures[runtime.GOARCH]
	missing := libseccomp.ActErrno.SetReturnCode(int16(unix.ENOSYS))
	switch c.normal {
	case libseccomp.ActAllow, libseccomp.ActLog, missing:
		return nil
	}
	if !known || c.last <= 0 {
		return nil
	}
	load, jump := uint16(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS), uint16(unix.BPF_JMP|unix.BPF_K)
	var code []byte
	for _, i := range []unix.SockFilter{
		{Code: load, K: offsetArch},
		{Code: jump | unix.BPF_JEQ, Jf: 4, K: arch},
		{Code: load, K: offsetNumber},
		{Code: jump | unix.BPF_JGE, Jt: 2, K: x32},
		{Code: jump | unix.BPF_JGT, Jf: 1, K: uint32(c.last)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
	} {
		code = binary.NativeEndian.AppendUint16(code, i.Code)
		code = append(code, i.Jt, i.Jf)
		code = binary.NativeEndian.AppendUint32(code, i.K)
	}
	return code
}
