/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confine.c - a program in a sandbox.
 *
 * Brolga's programs start squashfuse and brolga squash through this one. They have
 * made the rules: it applies them to itself, as the user that the program runs as,
 * and executes it. What is to be restricted must be alone in its process, and Go's
 * programs never are.
 *
 * It is not there for security where a user calls it: it takes rights and gives none.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_landlock_restrict_self
#define SYS_landlock_restrict_self 446 /* on all machines */
#endif

void confine(char **argv)
{
	int rules = atoi(argv[CONFINE_RULES]);
	struct task_error error = { 0 };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		give_up("set", "no_new_privs");
	if (rules >= 0) {
		if (syscall(SYS_landlock_restrict_self, rules, 0) < 0)
			give_up("restrict files for", argv[CONFINE_PROGRAM]);
		close(rules);
	}
	if (strcmp(argv[CONFINE_FILTER], "-") != 0 &&
	    filter_install(argv[CONFINE_FILTER], &error) < 0)
		give_up("filter system calls for", argv[CONFINE_PROGRAM]);
	execv(argv[CONFINE_PROGRAM], argv + CONFINE_NAME);
	give_up("execute", argv[CONFINE_PROGRAM]);
}
