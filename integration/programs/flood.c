/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flood.c - a stranger who connects to ports of this machine as fast as it can.
 *
 * Usage: flood HELD TEXT PORT...
 *
 * Each connection sends TEXT and stays open until HELD newer ones are there. It goes on
 * until it is killed, and prints "flooding" when HELD connections have been made.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static int call(int port, const char *text)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons((unsigned short)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	/* With an end by RST no port stays in TIME_WAIT. */
	struct linger hard = { .l_onoff = 1 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	send(fd, text, strlen(text), MSG_NOSIGNAL);
	return fd;
}

int main(int argc, char **argv)
{
	int held = argc > 3 ? atoi(argv[1]) : 0;
	struct rlimit files;
	int *fds;

	if (held <= 0 || getrlimit(RLIMIT_NOFILE, &files) < 0)
		return 2;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	fds = malloc((size_t)held * sizeof(*fds));
	if (!fds)
		return 2;
	memset(fds, 0xff, (size_t)held * sizeof(*fds)); /* -1 */
	for (unsigned long i = 0;; i++) {
		int *place = &fds[i % (unsigned long)held];

		if (*place >= 0)
			close(*place);
		*place = call(atoi(argv[3 + i % (unsigned long)(argc - 3)]), argv[2]);
		if (i + 1 == (unsigned long)held) {
			puts("flooding");
			fflush(stdout);
		}
	}
}
