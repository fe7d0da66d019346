// SPDX-License-Identifier: Apache-2.0
/*
 * swapper - exchange files with links as fast as it can.
 *
 *   swapper STOP [A B]...
 *
 * It exchanges what each two names mean (renameat2(2), RENAME_EXCHANGE), one pair
 * after the other, until the file STOP exists. Then it prints how many exchanges it
 * has made.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int exchange(const char *a, const char *b)
{
	return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

int main(int argc, char **argv)
{
	unsigned long made = 0;

	if (argc < 4 || argc % 2 != 0) {
		fprintf(stderr, "usage: swapper STOP [A B]...\n");
		return 2;
	}
	for (int i = 2; i < argc; i += 2) {
		if (exchange(argv[i], argv[i + 1]) < 0 || exchange(argv[i], argv[i + 1]) < 0) {
			fprintf(stderr, "exchange %s and %s: %m\n", argv[i], argv[i + 1]);
			return 1;
		}
	}
	while (access(argv[1], F_OK) < 0)
		for (int i = 2; i < argc; i += 2)
			made += exchange(argv[i], argv[i + 1]) == 0;
	printf("%lu\n", made);
	return 0;
}
