/* SPDX-License-Identifier: Apache-2.0 */
/*
 * filter.c - the site's filter of system calls.
 *
 * It is installed after everything else: what it forbids is no longer needed then.
 */
#include "task.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Writes the bytes that the digits stand for; returns their number, or -1. */
static long decode(unsigned char *bytes, size_t size, const char *digits)
{
	size_t n = 0;

	for (; *digits; digits += 2) {
		int high = digit(digits[0]), low = high < 0 ? -1 : digit(digits[1]);

		if (low < 0 || n == size)
			return -1;
		bytes[n++] = (unsigned char)(high << 4 | low);
	}
	return (long)n;
}

/*
 * Installs the filter of the plan: flags of seccomp(2), a colon, and its
 * instructions as hexadecimal digits. Needs no_new_privs.
 */
int filter_install(const char *filter, struct task_error *error)
{
	static struct sock_filter program[BPF_MAXINSNS];
	char *rest;
	unsigned long flags = strtoul(filter, &rest, 10);
	long n = *rest == ':' ? decode((unsigned char *)program, sizeof(program), rest + 1) : -1;
	struct sock_fprog all = { .filter = program };

	if (n <= 0 || n % (long)sizeof(*program) != 0)
		return fail(error,
			    "internal error: the helper's filter of system calls is malformed");
	all.len = (unsigned short)(n / (long)sizeof(*program));
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (unsigned int)flags, &all) < 0)
		return fail_errno(error, "install the site's seccomp profile");
	return 0;
}
