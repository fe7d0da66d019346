// SPDX-License-Identifier: Apache-2.0

package main

// slurmstepd blocks signals, and a blocked signal stays blocked across execve.
// Go keeps the mask it finds for the programs it starts, so the mask is emptied
// before the Go runtime looks at it.

/*
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stddef.h>

__attribute__((constructor)) static void unblock_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

// The stack of each thread counts as memory of the process (RLIMIT_DATA), and is as
// large as slurmd's limit says, which a site may have raised. No C code of the helper
// needs more than this.
__attribute__((constructor)) static void limit_stacks(void)
{
	pthread_attr_t small;

	if (pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 1 << 20) == 0)
		pthread_setattr_default_np(&small);
}
*/
import "C"
