// SPDX-License-Identifier: Apache-2.0
/*
 * whoeuid - print the real and effective user id.
 *
 * Installed setuid root in the test image, where the bit must have no effect.
 */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	printf("uid=%u euid=%u\n", (unsigned)getuid(), (unsigned)geteuid());
	return 0;
}
