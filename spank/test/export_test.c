/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export_test.c - variables that --export would keep from a step.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fake_spank.h"

static void travel(void)
{
	setenv("BROLGA_CONTAINER_IMAGE", "ubuntu", 1);
	setenv("BROLGA_CONTAINER_ENV", "A=b", 1);
	setenv("NOT_BROLGA_PIN", "x", 1);
	CHECK(export_keep() == 0);
	CHECK_TEXT(getenv("SLURM_BROLGA_CONTAINER_IMAGE"), "ubuntu");
	CHECK_TEXT(getenv("SLURM_BROLGA_CONTAINER_ENV"), "A=b");
	CHECK(!getenv("SLURM_NOT_BROLGA_PIN"));
	CHECK_TEXT(getenv("BROLGA_CONTAINER_IMAGE"), "ubuntu");
	setenv("BROLGA_CONTAINER_IMAGE", "debian", 1);
	CHECK(export_keep() == 0);
	CHECK_TEXT(getenv("SLURM_BROLGA_CONTAINER_IMAGE"), "debian");
}

/* What the user has unset since must not come back. */
static void forgotten(void)
{
	setenv("SLURM_BROLGA_CONTAINER_IMAGE", "old", 1);
	setenv("SLURM_BROLGA_PIN", "old", 1);
	setenv("SLURM_JOB_ID", "1", 1);
	setenv("SLURM_SPANK_BROLGA_JOB_IMAGE", "old", 1);
	setenv("SLURM_SPANK_OTHER", "x", 1);
	export_to_job(NULL, "BROLGA_JOB_IMAGE=old=1");
	CHECK_TEXT(fake_variable("SPANK_BROLGA_JOB_IMAGE"), "old=1");
	export_forget(NULL);
	CHECK(!getenv("SLURM_BROLGA_CONTAINER_IMAGE") && !getenv("SLURM_BROLGA_PIN"));
	CHECK(!getenv("SLURM_SPANK_BROLGA_JOB_IMAGE") && !fake_variable("SPANK_BROLGA_JOB_IMAGE"));
	CHECK_TEXT(getenv("SLURM_SPANK_OTHER"), "x");
	CHECK_TEXT(getenv("SLURM_JOB_ID"), "1");
}

static void arrive(void)
{
	char *env[] = { "A=b", "SLURM_BROLGA_CONTAINER_IMAGE=ubuntu=x",
			"SLURM_BROLGA_PIN=", "SLURM_JOB_ID=1", NULL };
	char *again[COUNT(env)];

	memcpy(again, env, sizeof(env));
	setenv("SLURM_BROLGA_CONTAINER_WORKDIR", "/", 1); /* slurmstepd's own */
	fake.env = env;
	fake.kept_variable = "BROLGA_CONTAINER_IMAGE";
	export_restore(NULL);
	/* What came along itself is the user's latest word. */
	CHECK(!fake_variable("BROLGA_CONTAINER_IMAGE"));
	fake.kept_variable = NULL;
	fake.env = again;
	export_restore(NULL);
	CHECK_TEXT(fake_variable("BROLGA_CONTAINER_IMAGE"), "ubuntu=x");
	CHECK_TEXT(fake_variable("BROLGA_PIN"), "");
	CHECK(!fake_variable("SLURM_BROLGA_PIN"));
	CHECK(!fake_variable("BROLGA_CONTAINER_WORKDIR"));
}

/* Slurm would run the step on the host without the one that asks for a container. */
static void many(void)
{
	static char names[100][32];
	char *env[COUNT(names) + 2];

	for (size_t i = 0; i < COUNT(names); i++) {
		snprintf(names[i], sizeof(names[i]), "SLURM_BROLGA_OTHER_%zu=", i);
		env[i] = names[i];
	}
	env[COUNT(names)] = (char *)"SLURM_BROLGA_CONTAINER_IMAGE=ubuntu";
	env[COUNT(names) + 1] = NULL;
	fake.env = env;
	export_restore(NULL);
	CHECK_TEXT(fake_variable("BROLGA_CONTAINER_IMAGE"), "ubuntu");
}

int main(void)
{
	static const struct test tests[] = {
		{ "our variables travel under a name that Slurm passes on", travel },
		{ "what an earlier step left is forgotten", forgotten },
		{ "they arrive, unless the step has its own", arrive },
		{ "they arrive, however many there are", many },
	};

	return run_tests("export_test", tests, COUNT(tests));
}
