/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command.c - the command as the plan has it, and how it is said to have ended.
 */
#include "launcher.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* As slurmstepd ends a task whose command it cannot execute. */
void give_up(const char *what, const char *object)
{
	int error = errno;

	fprintf(stderr, "brolga: error: %s %s: %s\n", what, object, strerror(error));
	exit(error ? error : EXIT_FAILURE);
}

void complain(const char *text, const char *hint)
{
	fprintf(stderr, "brolga: error: %s\n", text);
	if (hint && *hint)
		fprintf(stderr, "brolga: hint: %s\n", hint);
}

struct plan open_plan(int fd)
{
	static struct task_error error;
	struct plan plan;

	if (plan_open(fd, &plan, &error) < 0) {
		complain(error.text, NULL);
		exit(EXIT_FAILURE);
	}
	close(fd); /* the user's program gets none of ours */
	return plan;
}

/* The entrypoint, the command that the launcher took the place of, the rest. */
char **make_arguments(struct plan plan, char *command, int argc, char **argv)
{
	const char *word;
	struct plan again = plan;
	size_t count = 0;
	char **all;

	while (plan_next(&again, "entrypoint"))
		count++;
	all = calloc(count + (size_t)argc + 1, sizeof(*all));
	if (!all)
		give_up("lay out", "the command");
	count = 0;
	while ((word = plan_next(&plan, "entrypoint")))
		all[count++] = (char *)word;
	if (*command)
		all[count++] = command;
	memcpy(all + count, argv + 1, sizeof(*all) * (size_t)argc); /* with the NULL */
	return all;
}

/* Ends as the child ended, so that Slurm reports that; it has the core file. */
void end_as(int status)
{
	sigset_t all;

	if (WIFEXITED(status))
		exit(WEXITSTATUS(status));
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	signal(WTERMSIG(status), SIG_DFL);
	raise(WTERMSIG(status));
	sigfillset(&all);
	sigprocmask(SIG_UNBLOCK, &all, NULL);
	exit(128 + WTERMSIG(status));
}
