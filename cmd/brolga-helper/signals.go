// SPDX-License-Identifier: Apache-2.0

package main

// slurmstepd blocks signals, and a blocked signal stays blocked across execve.
// Go keeps the mask it finds for the programs it starts, so the mask is emptied
// before the Go runtime looks at it.

/*
#include <signal.h>
#include <stddef.h>

__attribute__((constructor)) static void unblock_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}
*/
import "C"
