/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options_test.c - what is registered, and what is kept of what Slurm passes.
 */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fake_spank.h"

static const struct {
	const char *name;
	const char *argument;
	int has_argument;
	const char *usage;
	const char *variable;
} table[] = {
#include "../options.inc"
};

static char *added(void)
{
	struct message m = { 0 };
	char *text;

	options_add(&m);
	text = records_text(m.data ? m.data : "", m.length);
	message_free(&m);
	return text;
}

static void expect_added(const char *want)
{
	char *text = added();

	CHECK_TEXT(text, want);
	free(text);
}

static void whole_table(void)
{
	CHECK(options_register(NULL) == 0);
	CHECK(fake.option_count == COUNT(table));
	for (size_t i = 0; i < COUNT(table); i++) {
		const struct spank_option *option = &fake.options[i];

		CHECK_TEXT(option->name, table[i].name);
		CHECK_TEXT(option->usage, table[i].usage);
		CHECK(option->has_arg == table[i].has_argument);
		CHECK((option->has_arg != 0) == (table[i].argument != NULL));
		CHECK(option->val == (int)i && option->cb != NULL);
		CHECK(strlen(option->name) < SPANK_OPTION_MAXLEN);
		if (table[i].argument)
			CHECK_TEXT(option->arginfo, table[i].argument);
	}
}

static void taken_name(void)
{
	fake.refused_option = "container-image";
	CHECK(options_register(NULL) == -1);
	CHECK_TEXT(fake_log(), "error: brolga: register option --container-image: is another "
			       "container plugin loaded?\n");
}

static void nothing_given(void)
{
	CHECK(options_register(NULL) == 0);
	CHECK(!options_given());
	expect_added("end\n");
}

static void last_value(void)
{
	CHECK(options_register(NULL) == 0);
	CHECK(fake_give("container-image", "first") == 0);
	CHECK(fake_give("container-image", "second") == 0);
	CHECK(fake_give("container-image", "third=x") == 0);
	CHECK(options_given());
	expect_added("option=container-image\nvalue=third=x\nend\n");
	options_free();
}

/* 22.05 passes "(null)" to slurmstepd for an option without an argument. */
static void flags(void)
{
	static const char *const passed[] = { NULL, "(null)", "" };

	CHECK(options_register(NULL) == 0);
	for (size_t i = 0; i < COUNT(passed); i++) {
		CHECK(fake_give("container-writable", passed[i]) == 0);
		CHECK(options_given());
		expect_added("option=container-writable\nvalue=\nend\n");
		options_free();
		CHECK(!options_given());
	}
}

/* A value is the user's: "(null)" is a strange image, not a missing one. */
static void values_are_kept(void)
{
	CHECK(options_register(NULL) == 0);
	CHECK(fake_give("container-image", "(null)") == 0);
	CHECK(fake_give("container-env", "") == 0);
	expect_added("option=container-image\nvalue=(null)\noption=container-env\nvalue=\nend\n");
	options_free();
}

static void table_order(void)
{
	CHECK(options_register(NULL) == 0);
	CHECK(fake_give("no-container-mount-home", NULL) == 0);
	CHECK(fake_give("container-mounts", "/a:/b") == 0);
	CHECK(fake_give("container-image", "i") == 0);
	expect_added("option=container-image\nvalue=i\noption=container-mounts\nvalue=/a:/b\n"
		     "option=no-container-mount-home\nvalue=\nend\n");
	options_free();
}

static void environment_of_the_process(void)
{
	fake.context = S_CTX_LOCAL;
	for (size_t i = 0; i < COUNT(table); i++) {
		if (!table[i].variable)
			continue;
		CHECK(!options_in_environment(NULL));
		setenv(table[i].variable, "", 1);
		CHECK(options_in_environment(NULL));
		unsetenv(table[i].variable);
	}
	/* A preference does not ask for a container. */
	setenv("BROLGA_CONTAINER_MOUNT_HOME", "0", 1);
	CHECK(!options_in_environment(NULL));
	fake.context = S_CTX_ALLOCATOR;
	setenv("BROLGA_CONTAINER_IMAGE", "ubuntu", 1);
	CHECK(options_in_environment(NULL));
	CHECK(!options_given());
}

/* In slurmstepd the step's environment counts, not slurmstepd's own. */
static void environment_of_the_step(void)
{
	char *with[] = { "A=b", "BROLGA_CONTAINER_IMAGE=docker.io/library/ubuntu:24.04", NULL };
	char *empty[] = { "BROLGA_CONTAINER_IMAGE=", NULL };
	char *without[] = { "BROLGA_CONTAINER_IMAGES=ubuntu", "X_BROLGA_CONTAINER_IMAGE=a", NULL };

	setenv("BROLGA_CONTAINER_IMAGE", "ubuntu", 1);
	CHECK(!options_in_environment(NULL));
	fake.env = with;
	CHECK(options_in_environment(NULL));
	fake.env = empty;
	CHECK(options_in_environment(NULL));
	fake.env = without;
	CHECK(!options_in_environment(NULL));
}

/* sbatch --export=NONE before 23.11: only what it tells the job's steps is left. */
static void recovered(void)
{
	char *env[] = { "SLURM_SPANK__SLURM_SPANK_OPTION_brolga_container_image=a=b",
			"SLURM_SPANK__SLURM_SPANK_OPTION_brolga_container_writable=(null)",
			"SLURM_SPANK__SLURM_SPANK_OPTION_other_container_workdir=/",
			"SLURM_SPANK__SLURM_SPANK_OPTION_brolga_container_imagex=c", NULL };

	CHECK(options_register(NULL) == 0);
	fake.env = env;
	options_recover(NULL);
	expect_added("option=container-image\nvalue=a=b\noption=container-writable\nvalue=\nend\n");
	options_free();
}

int main(void)
{
	static const struct test tests[] = {
		{ "all options of the table are registered", whole_table },
		{ "a name that is taken is an error", taken_name },
		{ "nothing given adds nothing", nothing_given },
		{ "the last value of an option wins", last_value },
		{ "a flag has no value, whatever Slurm passes", flags },
		{ "values are passed on as they are", values_are_kept },
		{ "options are in the order of the table", table_order },
		{ "each variable asks for a container in srun", environment_of_the_process },
		{ "slurmstepd looks at the step's variables", environment_of_the_step },
		{ "what sbatch left for the job's steps is found", recovered },
	};

	return run_tests("options_test", tests, COUNT(tests));
}
