/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch.c - has Slurm execute the launcher in front of the user's command.
 *
 * Runs where join.c does, under the same rules. Slurm still looks at limits,
 * prologs and the like before it executes anything, so the command is not
 * executed here.
 */
#include "shim.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "../task/launch.h"

/* Since Slurm 23.11. */
extern spank_err_t spank_prepend_task_argv(spank_t sp, int argc, const char *argv[])
	__attribute__((weak));

/*
 * Before 23.11 the arguments of a task are the job's, and only the child that
 * executes them sees a change (slurmstepd/task.c). There may be no more of them
 * than before: the launcher takes the command's place, and its name goes along.
 */
static int replace_command(spank_t sp, const char *launcher, const char **command)
{
	char **arguments = NULL;
	int count = 0;

	if (spank_get_item(sp, S_JOB_ARGV, &count, &arguments) != ESPANK_SUCCESS || count < 1)
		return -1;
	*command = arguments[0];
	arguments[0] = (char *)launcher;
	return 0;
}

/*
 * The launcher reads the plan again, through the descriptor that it inherits, and
 * keeps the helper alive by the socket, unless that is -1; stepd is the name of
 * slurmstepd's process, which it may have to take. launcher is a path of
 * the container and stays valid until execve(2).
 */
int launch_by(spank_t sp, const char *launcher, int plan, int socket, const char *stepd)
{
	static char value[LAUNCH_COMMAND_MAX];
	const char *command = "";
	int n;

	if (spank_prepend_task_argv) {
		if (spank_prepend_task_argv(sp, 1, &launcher) != ESPANK_SUCCESS)
			return -1;
	} else if (replace_command(sp, launcher, &command) < 0) {
		return -1;
	}
	n = snprintf(value, sizeof(value), "%d,%d,%s:%s", plan, socket, stepd, command);
	if (n < 0 || (size_t)n >= sizeof(value))
		return -1;
	if (fcntl(plan, F_SETFD, 0) < 0 || (socket >= 0 && fcntl(socket, F_SETFD, 0) < 0))
		return -1;
	return spank_setenv(sp, LAUNCH_VARIABLE, value, 1) == ESPANK_SUCCESS ? 0 : -1;
}
