// SPDX-License-Identifier: Apache-2.0
/*
 * hello - print what a container is made of, one "name: value" per line.
 *
 * Arguments first, then the image's marker and a few variables, the user, the
 * working directory and the mount namespace.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const variables[] = { "BROLGA_IMAGE", "PATH", "HOME", "SLURM_JOB_ID",
					 "SLURM_PROCID" };

static void print_link(const char *name, const char *path)
{
	char target[PATH_MAX];
	ssize_t len = readlink(path, target, sizeof(target) - 1);

	target[len < 0 ? 0 : len] = '\0';
	printf("%s: %s\n", name, target);
}

int main(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		printf("arg%d: %s\n", i, argv[i]);
	for (size_t i = 0; i < sizeof(variables) / sizeof(*variables); i++)
		if (getenv(variables[i]))
			printf("%s: %s\n", variables[i], getenv(variables[i]));
	printf("uid: %u\ngid: %u\n", (unsigned)getuid(), (unsigned)getgid());
	print_link("cwd", "/proc/self/cwd");
	print_link("mnt", "/proc/self/ns/mnt");
	return 0;
}
