/* SPDX-License-Identifier: Apache-2.0 */
/*
 * descriptors.c - descriptors that close themselves.
 */
#include "task.h"

#include <unistd.h>

void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
