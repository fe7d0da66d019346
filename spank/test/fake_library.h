/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_library.h - a libbrolga.so that answers what it is told to.
 */
#ifndef BROLGA_TEST_FAKE_LIBRARY_H
#define BROLGA_TEST_FAKE_LIBRARY_H

#include <stddef.h>

/* dlsym(3) finds it under this name. */
struct fake_library {
	/* The answer: records and their length, and what the call returns. */
	char reply[4096];
	size_t reply_length;
	int rc;
	/* The last call. */
	int submits, launches;
	char message[1 << 16];
	size_t length;
};

#endif
