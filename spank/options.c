/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.c - registers the options of the generated table and keeps what was
 * given. Values are not looked at here: pkg/request does that.
 */
#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * One row: the option, its argument (NULL for a flag), whether it has one as
 * getopt_long(3) says it, its help text and the environment variable that asks
 * for a container by itself (NULL for those that only say how it shall be; the
 * library reads them).
 */
static const struct {
	const char *name;
	const char *argument;
	int has_argument;
	const char *usage;
	const char *variable;
} table[] = {
#include "options.inc"
};

/* What was given, by row; NULL where an option was not. Owned here. */
static char *values[COUNT(table)];

/*
 * Slurm calls this several times for one option: sbatch for the script's lines,
 * the environment and the command line, slurmstepd up to 23.02 for the launch
 * message and the environment. The last value is the one that counts. In
 * slurmstepd a failure would be logged and then ignored, so nothing fails here;
 * a value that could not be kept makes the message fail later.
 */
static int option_given(int row, const char *value, int remote)
{
	(void)remote;
	free(values[row]);
	values[row] = strdup(value ? value : "");
	return values[row] ? 0 : -1;
}

int options_register(spank_t sp)
{
	for (size_t i = 0; i < COUNT(table); i++) {
		struct spank_option option = {
			.name = (char *)table[i].name,
			.arginfo = (char *)table[i].argument,
			.usage = (char *)table[i].usage,
			.has_arg = table[i].has_argument,
			.val = (int)i,
			.cb = option_given,
		};

		if (spank_option_register(sp, &option) != ESPANK_SUCCESS) {
			slurm_error(
				"brolga: register option --%s: is another container plugin loaded?",
				table[i].name);
			return -1;
		}
	}
	return 0;
}

bool options_given(void)
{
	for (size_t i = 0; i < COUNT(table); i++)
		if (values[i])
			return true;
	return false;
}

static bool variable_is_set(spank_t sp, const char *name)
{
	char value[1];
	spank_err_t rc;

	if (spank_context() != S_CTX_REMOTE)
		return getenv(name) != NULL;
	rc = spank_getenv(sp, name, value, sizeof(value));
	return rc == ESPANK_SUCCESS || rc == ESPANK_NOSPACE;
}

/* Tells whether the environment asks for a container. */
bool options_in_environment(spank_t sp)
{
	for (size_t i = 0; i < COUNT(table); i++)
		if (table[i].variable && variable_is_set(sp, table[i].variable))
			return true;
	return false;
}

/*
 * The name under which sbatch leaves an option for the steps of the job
 * (slurm/src/common/plugstack.c): as srun finds it in the job's environment.
 */
static size_t job_variable(char *name, size_t size, const char *option)
{
	int n = snprintf(name, size, "SLURM_SPANK__SLURM_SPANK_OPTION_brolga_%s=", option);

	for (char *at = name; *at; at++)
		if (*at == '-')
			*at = '_';
	return n < 0 || (size_t)n >= size ? 0 : (size_t)n;
}

/*
 * Before Slurm 23.11 sbatch --export=NONE, or with a list, loses what it would
 * tell the batch step of options, but not what it tells the job's steps.
 */
void options_recover(spank_t sp)
{
	char **environment = NULL;

	if (spank_get_item(sp, S_JOB_ENV, &environment) != ESPANK_SUCCESS)
		return;
	for (size_t i = 0; i < COUNT(table); i++) {
		char name[128];
		size_t length = job_variable(name, sizeof(name), table[i].name);

		for (char **entry = environment; length && entry && *entry; entry++)
			if (strncmp(*entry, name, length) == 0)
				option_given((int)i, *entry + length, 1);
	}
}

void options_add(struct message *m)
{
	for (size_t i = 0; i < COUNT(table); i++) {
		if (!values[i])
			continue;
		message_add(m, "option", table[i].name);
		/* Slurm passes "(null)" or nothing for a flag, depending on its version. */
		message_add(m, "value", table[i].has_argument ? values[i] : "");
	}
}

void options_free(void)
{
	for (size_t i = 0; i < COUNT(table); i++) {
		free(values[i]);
		values[i] = NULL;
	}
}
