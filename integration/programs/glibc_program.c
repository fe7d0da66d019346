// SPDX-License-Identifier: Apache-2.0
/*
 * glibc_program - use much of the C library, and say which one it is.
 *
 * Built on this machine, it needs what its release of the library has. Prints
 * "release R", "thread N", "name NAME" (of the user, by nsswitch.conf), "converted
 * TEXT" (by a module of iconv(3)), "resolved ADDRESS" and, for each file of the C
 * library that is mapped, "mapped INODE NAME" (/proc/self/maps).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <iconv.h>
#include <math.h>
#include <netdb.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *run(void *n)
{
	*(double *)n = sqrt(*(double *)n);
	return NULL;
}

static void convert(void)
{
	char in[] = "\xa4", out[16] = "", *from = in, *to = out;
	size_t left = 1, room = sizeof(out) - 1;
	iconv_t c = iconv_open("UTF-8", "ISO-8859-15");

	if (c != (iconv_t)-1 && iconv(c, &from, &left, &to, &room) == 0)
		printf("converted %s\n", out);
}

static void resolve(void)
{
	struct addrinfo hint = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *found;
	char text[INET_ADDRSTRLEN];

	if (getaddrinfo("localhost", NULL, &hint, &found))
		return;
	inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof(text));
	printf("resolved %s\n", text);
	freeaddrinfo(found);
}

static void mapped(void)
{
	char line[8192], path[4096], before[4096] = "";
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long inode;

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%*s %*s %*s %*s %lu %4095s", &inode, path) != 2 ||
		    strcmp(path, before) == 0)
			continue;
		strcpy(before, path);
		if (strstr(path, "/libc") || strstr(path, "/libm") || strstr(path, "/ld-") ||
		    strstr(path, "/libdl") || strstr(path, "/libpthread"))
			printf("mapped %lu %s\n", inode, path);
	}
	if (maps)
		fclose(maps);
}

int main(void)
{
	const struct passwd *user = getpwuid(getuid());
	pthread_t thread;
	double n = 16;

	printf("release %s\n", gnu_get_libc_version());
	if (pthread_create(&thread, NULL, run, &n) || pthread_join(thread, NULL))
		return 1;
	printf("thread %g\n", n);
	printf("name %s\n", user ? user->pw_name : "?");
	/* As a program of an older release has them: libraries of their own. */
	if (!dlopen("libpthread.so.0", RTLD_NOW) || !dlopen("libdl.so.2", RTLD_NOW))
		printf("dlopen: %s\n", dlerror());
	convert();
	resolve();
	mapped();
	return 0;
}
