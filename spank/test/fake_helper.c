/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_helper.c - a brolga-helper that notes what it is told, what it was given
 * and when its tasks are gone, in files beside itself (fake_helper.h).
 */
#include "fake_helper.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
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

/* A request for the image LEAVES_A_NOTE gets a note for the end of the step. */
static void note_message(void)
{
	static char buffer[1 << 16];
	FILE *f = create(HELPER_MESSAGE ".new");
	bool leaves = false;
	size_t n;

	while ((n = fread(buffer, 1, sizeof(buffer), stdin)) > 0) {
		fwrite(buffer, 1, n, f);
		leaves |= memmem(buffer, n, LEAVES_A_NOTE, strlen(LEAVES_A_NOTE)) != NULL;
	}
	if (leaves && write(0, "the note", strlen("the note")) < 0)
		abort();
	publish(f, HELPER_MESSAGE ".new", HELPER_MESSAGE);
}

/* Says what it reads, in a line after another one. */
static int poststop(void)
{
	char text[64] = "";

	if (read(0, text, sizeof(text) - 1) < 0 || getchar() != EOF)
		abort();
	dprintf(3, "first\nread: %s\n", text);
	return 0;
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
	if (argc > 1 && strcmp(argv[1], "poststop") == 0)
		return poststop();
	if (argc > 1 && strcmp(argv[1], "end") == 0)
		fputs("removed\nnot removed\n", stderr);
	note_message();
	while (poll(&tasks, 1, -1) < 0)
		;
	usleep(50000); /* the end takes a moment, so that a test sees who waits for it */
	publish(create(HELPER_ENDED ".new"), HELPER_ENDED ".new", HELPER_ENDED);
	return 0;
}
