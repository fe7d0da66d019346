/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_helper.c - a brolga-helper that notes what it is told, what it was given
 * and when its tasks are gone, in files beside itself (fake_helper.h).
 */
#include "fake_helper.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static FILE *create(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f)
		abort();
	return f;
}

/* Readers wait for the name: the file is whole when it has it. */
static void publish(FILE *f, const char *from, const char *to)
{
	if (fclose(f) != 0 || rename(from, to) != 0)
		abort();
}

static void note_message(void)
{
	static char buffer[1 << 16];
	FILE *f = create(HELPER_MESSAGE ".new");
	size_t n;

	while ((n = fread(buffer, 1, sizeof(buffer), stdin)) > 0)
		fwrite(buffer, 1, n, f);
	publish(f, HELPER_MESSAGE ".new", HELPER_MESSAGE);
}

static void note_descriptors(FILE *f)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(dir) &&
		    atoi(entry->d_name) != fileno(f))
			fprintf(f, "fd %s\n", entry->d_name);
	closedir(dir);
}

static void note_start(int argc, char **argv)
{
	FILE *f = create(HELPER_START ".new");

	fprintf(f, "pid %d\n", getpid());
	for (int i = 1; i < argc; i++)
		fprintf(f, "argument %s\n", argv[i]);
	note_descriptors(f);
	for (char **variable = environ; *variable; variable++)
		fprintf(f, "env %s\n", *variable);
	publish(f, HELPER_START ".new", HELPER_START);
}

int main(int argc, char **argv)
{
	struct pollfd tasks = { .fd = 3 };
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	alarm(60);
	note_start(argc, argv);
	note_message();
	while (poll(&tasks, 1, -1) < 0)
		;
	publish(create(HELPER_ENDED ".new"), HELPER_ENDED ".new", HELPER_ENDED);
	return 0;
}
