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
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
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
	struct stat status;
	const char *text;

	if (fstat(fd, &status) < 0 || status.st_size <= 0)
		give_up("read", "the plan");
	text = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (text == MAP_FAILED)
		give_up("map", "the plan");
	close(fd); /* the user's program gets none of ours */
	return (struct plan){ text, text + status.st_size };
}

/* Returns the value of the next record with that key, or NULL. */
const char *plan_next(struct plan *plan, const char *key)
{
	size_t length = strlen(key);

	while (plan->at < plan->end) {
		const char *record = plan->at;
		const char *nul = memchr(record, '\0', (size_t)(plan->end - record));

		if (!nul)
			return NULL; /* the shim has checked the form */
		plan->at = nul + 1;
		if (strncmp(record, key, length) == 0 && record[length] == '=')
			return record + length + 1;
	}
	return NULL;
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
