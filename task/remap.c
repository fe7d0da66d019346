/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remap.c - what a task may do that is root of a user namespace, where the only
 * user and the only group are those of the job.
 * It applies once the namespace was joined.
 */
#include "task.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * What root does with files and programs of its own. Nothing that mounts, traces,
 * or configures a network: the kernel code behind those is not for users.
 */
static const unsigned int kept = 1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER |
				 1u << CAP_FSETID | 1u << CAP_KILL | 1u << CAP_SETGID |
				 1u << CAP_SETUID | 1u << CAP_SETFCAP | 1u << CAP_SYS_CHROOT |
				 1u << CAP_NET_BIND_SERVICE;

/* setns(2) has given all capabilities in the namespace, for programs too. */
int remap_limit(struct task_error *error)
{
	if (capabilities_bound(kept, error) < 0)
		return -1;
	if (capabilities_set(kept) < 0)
		return fail_errno(error, "limit the capabilities of the container's root");
	return 0;
}

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#elif defined(__powerpc64__)
#define ARCHITECTURE AUDIT_ARCH_PPC64LE
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)
/* Jumps over the return of "allowed" where the system call is that one. */
#define PRETEND(call)                                          \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), \
		RETURN(SECCOMP_RET_ERRNO) /* error 0: it succeeds */

/*
 * Lets changes of owner and of user succeed without effect: there is no other
 * user in the namespace, and package managers give up when they cannot change to
 * one. Needs no_new_privs. Other architectures go without.
 */
int remap_pretend(void)
{
#ifdef ARCHITECTURE
	static struct sock_filter filter[] = {
		LOAD(arch),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
		RETURN(SECCOMP_RET_ALLOW),
		LOAD(nr),
#ifdef SYS_chown
		PRETEND(chown),
		PRETEND(lchown),
#endif
		PRETEND(fchown),
		PRETEND(fchownat),
		PRETEND(setuid),
		PRETEND(setgid),
		PRETEND(setreuid),
		PRETEND(setregid),
		PRETEND(setresuid),
		PRETEND(setresgid),
		PRETEND(setfsuid),
		PRETEND(setfsgid),
		PRETEND(setgroups),
		RETURN(SECCOMP_RET_ALLOW),
	};
	static const struct sock_fprog program = { COUNT(filter), filter };

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
#else
	return 0;
#endif
}
