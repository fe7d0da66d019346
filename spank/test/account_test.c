/* SPDX-License-Identifier: Apache-2.0 */
/*
 * account_test.c - names of users and groups, from this machine's own services.
 */
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* No system gives these numbers to anyone. */
#define NOBODY 4294967294u
#define NOT_A_GROUP 4294967293u

static void expect_accounts(uid_t uid, gid_t gid, const gid_t *groups, int count, const char *want)
{
	struct message m = { 0 };
	char *text;

	account_add(&m, uid, gid, groups, count);
	text = records_text(m.data, m.length);
	CHECK_TEXT(text, want);
	free(text);
	message_free(&m);
}

static void known(void)
{
	static const gid_t groups[] = { 1, 0, NOT_A_GROUP };

	/* The primary group once, also where Slurm lists it again. */
	expect_accounts(0, 0, groups, COUNT(groups),
			"account=root\ngecos=root\nhome=/root\n"
			"named_group=0\ngroup_name=root\nnamed_group=1\ngroup_name=daemon\nend\n");
}

static void unknown(void)
{
	expect_accounts(NOBODY, NOT_A_GROUP, NULL, 0, "account_error=no such user\nend\n");
}

int main(void)
{
	static const struct test tests[] = {
		{ "users and groups have the node's names", known },
		{ "an unknown user is told, an unknown group left out", unknown },
	};

	return run_tests("account_test", tests, COUNT(tests));
}
