/* SPDX-License-Identifier: Apache-2.0 */
/*
 * renumber_test.c - lists of numbers are changed as the helper says.
 */
#include <string.h>

#include "check.h"

static void numbers_are_changed(void)
{
	static const struct {
		const char *list, *map, *want;
	} cases[] = {
		{ "2,3", "2:0,3:1", "0,1" },
		{ "3,2", "2:0,3:1", "1,0" },
		{ "3", "2:0,3:1", "1" },
		{ "13,1,3", "1:0,3:1,13:2", "2,0,1" },
		{ "0,1", "0:0,1:1", "0,1" },
		{ "2.1,3.0", "2:0,3:10", "0.1,10.0" }, /* tiles of ZE_AFFINITY_MASK */
		{ "2,3", "3:0", "0" },
		{ "2", "3:0", "" },
		{ "", "3:0", "" },
		{ ",3,", "3:0", "0" },
		{ "GPU-2a,3,MIG-3/1/0", "3:0", "GPU-2a,0,MIG-3/1/0" },
		{ "-1,3", "3:0", "-1,0" },
		{ "NoDevFiles", "3:0", "NoDevFiles" },
		{ "3", "", "" },
		{ "3", "33:1", "" },
		{ "33", "3:1", "" },
		{ "3", "3", "" },
	};
	char out[64];

	for (size_t i = 0; i < COUNT(cases); i++) {
		memset(out, 'x', sizeof(out));
		CHECK(renumber(out, sizeof(out), cases[i].list, cases[i].map) == 0);
		CHECK_TEXT(out, cases[i].want);
	}
}

static void no_room(void)
{
	char out[4];

	CHECK(renumber(out, 4, "2,3", "2:0,3:1") == 0);
	CHECK_TEXT(out, "0,1");
	CHECK(renumber(out, 3, "2,3", "2:0,3:1") < 0);
	CHECK(renumber(out, 2, "2,3", "2:0,3:1") < 0);
	CHECK(renumber(out, 3, "GPU-1", "") < 0);
}

int main(void)
{
	static const struct test tests[] = {
		{ "numbers become what the map says, names stay", numbers_are_changed },
		{ "a list that is too long is refused", no_room },
	};

	return run_tests("renumber_test", tests, COUNT(tests));
}
