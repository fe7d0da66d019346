/* SPDX-License-Identifier: Apache-2.0 */
/*
 * capabilities.c - the capabilities of this process (capabilities(7)).
 *
 * All that are used here are among the first 32.
 */
#include "task.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Makes these the effective and permitted ones. None is inheritable then. */
int capabilities_set(unsigned int wanted)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { .effective = wanted, .permitted = wanted } };

	return (int)syscall(SYS_capset, &header, data);
}

int capabilities_clear_inheritable(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { 0 } };

	if (syscall(SYS_capget, &header, data) < 0)
		return -1;
	data[0].inheritable = data[1].inheritable = 0;
	return (int)syscall(SYS_capset, &header, data);
}

/*
 * Lets no execve(2) give others than these: empties the ambient set, and takes the rest
 * out of the bounding set. Capabilities that the process has stay.
 */
int capabilities_bound(unsigned int kept, struct task_error *error)
{
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return fail_errno(error, "clear ambient capabilities");
	/* The first number that the kernel does not know gives EINVAL. */
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		if ((cap > 31 || !(kept & 1u << cap)) && prctl(PR_CAPBSET_DROP, cap) < 0)
			return fail_errno(error, "drop capability %d from the bounding set", cap);
	return 0;
}
