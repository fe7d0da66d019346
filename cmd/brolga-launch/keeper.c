/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.c - ends a container with its command, however that ends.
 *
 * The command takes the place of this process, so nobody is left to see it end but
 * a process beside it: the keeper, which is nobody's child, in no terminal, and
 * outside the container. Then it kills what is left in the container's mount
 * namespace, and ends; with that go the mounts, and squashfuse with them.
 *
 * It holds the namespace open: once it is gone, the kernel gives its number to
 * another, perhaps that of a container that begins just then.
 */
#include "launcher.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* Kills all whose mount namespace is that one; tells whether there were any. */
static bool kill_all(const struct stat *namespace)
{
	DIR *proc = opendir("/proc");
	const struct dirent *entry;
	struct stat status;
	char path[300];
	bool found = false;

	if (!proc)
		return false;
	while ((entry = readdir(proc))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/ns/mnt", entry->d_name);
		/* Of processes that are others', or dead, nothing is told. */
		if (stat(path, &status) < 0 || status.st_ino != namespace->st_ino ||
		    status.st_dev != namespace->st_dev)
			continue;
		found = kill((pid_t)strtol(entry->d_name, NULL, 10), SIGKILL) == 0 || found;
	}
	closedir(proc);
	return found;
}

/* Its descriptors: the process (pidfd_open(2)), and the mount namespace. */
enum { KEPT_COMMAND, KEPT_NAMESPACE, KEPT_COUNT };

/* Becomes a program of its own: what lists processes shows it as what it is. */
__attribute__((noreturn)) static void become_keeper(int command, int namespace)
{
	char *arguments[] = { (char *)"brolga-launch", (char *)"keep", NULL };
	char *environment[] = { NULL };

	/* Neither is one of the first two: the command has those. */
	if (dup2(command, KEPT_COMMAND) < 0 || dup2(namespace, KEPT_NAMESPACE) < 0 ||
	    chdir("/") < 0)
		_exit(EXIT_FAILURE);
	/* Whoever waits for the end of the command's output must not wait for us. */
	if (syscall(SYS_close_range, KEPT_COUNT, UINT_MAX, 0) < 0)
		for (int fd = KEPT_COUNT; fd < (int)sysconf(_SC_OPEN_MAX); fd++)
			close(fd);
	execve("/proc/self/exe", arguments, environment);
	_exit(EXIT_FAILURE);
}

void keeper_run(char **argv)
{
	struct pollfd end = { .fd = KEPT_COMMAND, .events = POLLIN };
	struct stat namespace;

	(void)argv;
	if (fstat(KEPT_NAMESPACE, &namespace) < 0)
		_exit(EXIT_FAILURE);
	while (poll(&end, 1, -1) < 0)
		;
	/* Killed processes are there until they have died, and may have forked. */
	for (int i = 0; i < 1000 && kill_all(&namespace); i++)
		usleep(1000);
	_exit(EXIT_SUCCESS);
}

/* Starts the keeper of this process, which will be the command in that namespace. */
void keeper_start(int namespace)
{
	int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	pid_t pid;

	if (self < 0)
		give_up("watch", "the container (this needs Linux 5.3)");
	pid = fork();
	if (pid == 0) {
		setsid();
		if (fork() == 0)
			become_keeper(self, namespace);
		_exit(EXIT_SUCCESS);
	}
	if (pid < 0)
		give_up("start", "the container's keeper");
	while (waitpid(pid, NULL, 0) < 0)
		;
	close(self);
}
