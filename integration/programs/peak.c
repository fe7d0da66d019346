/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peak.c - runs PROGRAM.real in place of PROGRAM and notes the most memory that it had.
 *
 * PROGRAM.limit, if there is one, has the limit of memory in bytes (RLIMIT_DATA) that it
 * gets. Each line of PROGRAM.peaks is "FIRST_ARGUMENT KIBIBYTES STATUS". The kernel counts
 * (getrusage(2), ru_maxrss), so no peak is missed, however short the program lives. Those
 * of its own children count, too.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static FILE *limit_of(const char *self)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s.limit", self);
	return fopen(path, "re");
}

int main(int argc, char **argv, char **environment)
{
	char self[PATH_MAX - 8] = "", real[PATH_MAX], peaks[PATH_MAX];
	unsigned long long limit = 0;
	struct rusage usage;
	int status;
	FILE *log;
	pid_t pid;

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return 126;
	snprintf(real, sizeof(real), "%s.real", self);
	snprintf(peaks, sizeof(peaks), "%s.peaks", self);
	log = limit_of(self);
	if (log) {
		if (fscanf(log, "%llu", &limit) != 1)
			limit = 0;
		fclose(log);
	}
	pid = vfork();
	if (pid == 0) {
		if (limit)
			setrlimit(RLIMIT_DATA, &(struct rlimit){ limit, limit });
		execve(real, argv, environment);
		_exit(127);
	}
	/* The caller waits for the end of these descriptors. */
	syscall(SYS_close_range, 0, ~0u, 0);
	if (pid < 0 || wait4(pid, &status, 0, &usage) < 0)
		return 126;
	log = fopen(peaks, "ae");
	if (log) {
		fprintf(log, "%s %ld %d\n", argc > 1 ? argv[1] : "-", usage.ru_maxrss, status);
		fclose(log);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
