/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helper.c - starts the helper while the Go runtime of this library still
 * starts itself.
 *
 * dlopen(3) of a Go library returns before its runtime is ready, and the first
 * call into Go waits for it. The helper takes as long to start, so it is started
 * from C first and handed its request afterwards.
 */
#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "_cgo_export.h"

#ifndef BROLGA_HELPER
#define BROLGA_HELPER "/usr/local/libexec/brolga/brolga-helper"
#endif

/* All of the environment that the privileged helper gets. It lives for
 * milliseconds and uses little memory, so it collects no garbage. */
static char *const environment[] = {
	"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
	"LC_ALL=C.UTF-8",
	"GOGC=off",
	"GOMEMLIMIT=256MiB",
	"GOMAXPROCS=2",
	NULL,
};

/* Descriptors of the helper: its request, nothing, nothing, the tasks' socket. */
enum { FD_REQUEST, FD_OUTPUT, FD_ERRORS, FD_SOCKET, FD_COUNT };

struct start {
	int fds[FD_COUNT];
	int error; /* errno of what failed, 0 once the helper executes */
};

/* Puts the descriptors where the helper expects them and closes all others. */
static int place_descriptors(const int fds[FD_COUNT])
{
	int high[FD_COUNT];

	/* Out of the way first: one may have the number of another's place. */
	for (int i = 0; i < FD_COUNT; i++)
		if ((high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FD_COUNT)) < 0)
			return -1;
	for (int i = 0; i < FD_COUNT; i++)
		if (dup2(high[i], i) < 0)
			return -1;
#ifdef SYS_close_range
	/* Before Linux 5.9 there is no such call; slurmstepd opens its files with
	 * O_CLOEXEC, so this is a second line of defence. */
	syscall(SYS_close_range, FD_COUNT, ~0u, 0);
#endif
	return 0;
}

/*
 * Runs in a child that shares slurmstepd's memory until it executes the helper,
 * as after vfork(2): system calls only.
 */
static int execute(void *argument)
{
	static char *const arguments[] = { BROLGA_HELPER, "step", NULL };
	struct start *start = argument;

	if (setsid() >= 0 && place_descriptors(start->fds) == 0)
		execve(BROLGA_HELPER, arguments, environment);
	start->error = errno;
	_exit(127);
}

/*
 * Starts the helper and returns when it executes, or -1 with errno set.
 *
 * CLONE_PARENT makes it slurmstepd's sibling. slurmstepd waits for any child,
 * and reaping one that is no task costs it a pause of 0.1 s
 * (docs/decisions/0003-helper-beside-slurmstepd.md). Signals stay blocked so
 * that no handler of slurmstepd runs in the child; the helper unblocks them.
 */
static int start_helper(struct start *start)
{
	static char stack[16384] __attribute__((aligned(16)));
	sigset_t all, before;
	int pid, error;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	pid = clone(execute, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | CLONE_PARENT | SIGCHLD,
		    start);
	error = pid < 0 ? errno : start->error;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return error ? -1 : 0;
}

/* In C, so that asking does not wait for the Go runtime either. */
int brolga_abi(void)
{
	return BROLGA_ABI;
}

static int refuse(char *reply, size_t size, const char *what)
{
	memset(reply, 0, size);
	snprintf(reply, size, "error=%s: %s", what, strerror(errno));
	return -1;
}

int brolga_start(brolga_byte *message, size_t length, int socket, char *reply, size_t size)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	int request[2], rc;

	if (null < 0 || pipe2(request, O_CLOEXEC) < 0) {
		rc = refuse(reply, size, "start the helper");
		close(null);
		return rc;
	}
	struct start start = { .fds = { request[0], null, null, socket } };

	rc = start_helper(&start);
	close(null);
	close(request[0]);
	if (rc < 0)
		rc = refuse(reply, size, "start the helper " BROLGA_HELPER);
	else /* a helper that gets no request ends */
		rc = brolga_hand_over(message, length, request[1], reply, size);
	close(request[1]);
	return rc;
}
