/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Executes REAL with GORACE set to REPORTS, for scripts/soak.d/sanitize. "brolga convert"
 * and "brolga save" make system calls in all threads, which Go does not do in a program
 * with cgo, and the race detector needs cgo: they stay as they were, PLAIN.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int plain = argc > 1 && (strcmp(argv[1], "convert") == 0 || strcmp(argv[1], "save") == 0);

	if (setenv("GORACE", REPORTS, 1) == 0)
		execv(plain ? PLAIN : REAL, argv);
	perror(REAL);
	return 127;
}
