/* SPDX-License-Identifier: Apache-2.0 */
/*
 * steal_sockets PID - take copies of all sockets of another process of the same user, say
 * how many, and keep them (pidfd_getfd(2)).
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int target = argc == 2 ? (int)syscall(SYS_pidfd_open, atoi(argv[1]), 0) : -1;
	int sockets = 0;

	for (int fd = 0; target >= 0 && fd < 256; fd++) {
		int copy = (int)syscall(SYS_pidfd_getfd, target, fd, 0);
		struct stat st;

		if (copy >= 0 && fstat(copy, &st) == 0 && S_ISSOCK(st.st_mode))
			sockets++;
		else
			close(copy);
	}
	printf("%d\n", sockets);
	fflush(stdout);
	if (sockets)
		pause();
	return 1;
}
