/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export.c - takes our variables past --export.
 *
 * With --export=NONE, or a list, sbatch and srun pass on no variables but those
 * that begin with SLURM_. What decides about a container must not be lost: the
 * step would run on the host. So each of our variables travels under such a
 * name, too, and gets its own back on the node, if it did not come along itself.
 * Then the user's script can change or unset it as ever.
 */
#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CARRIER "SLURM_"
#define OURS "BROLGA_"
#define OF_JOB "SLURM_SPANK_" /* sbatch and salloc leave it, for srun to read */

extern char **environ;

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/* Returns the name of an entry NAME=VALUE; the caller frees it. */
static char *name_of(const char *entry)
{
	return strndup(entry, strcspn(entry, "="));
}

static const char *value_of(const char *entry)
{
	const char *equals = strchr(entry, '=');

	return equals ? equals + 1 : "";
}

/* In srun, sbatch and salloc: forgets what the step or job that we are in has left. */
void export_forget(spank_t sp)
{
	for (size_t i = 0; environ && environ[i];) {
		bool of_job = begins(environ[i], OF_JOB OURS);
		bool ours = of_job || begins(environ[i], CARRIER OURS);
		char *name = ours ? name_of(environ[i]) : NULL;

		if (name && of_job)
			spank_job_control_unsetenv(sp, name + strlen(OF_JOB));
		if (!name || unsetenv(name) < 0)
			i++;
		free(name);
	}
}

/* In srun, sbatch and salloc: sets a variable of the step, NAME=VALUE. Returns -1
 * without memory. */
int export_to_step(const char *entry)
{
	char *name = name_of(entry);
	int rc = name ? 0 : -1;

	if (name && strchr(entry, '='))
		rc = setenv(name, value_of(entry), 1);
	free(name);
	return rc;
}

/* In srun, sbatch and salloc: sets a variable of the job's prologs, NAME=VALUE. */
void export_to_job(spank_t sp, const char *entry)
{
	char *name = name_of(entry);

	if (name)
		spank_job_control_setenv(sp, name, value_of(entry), 1);
	free(name);
}

/* In srun, sbatch and salloc. Returns -1 without memory. */
int export_keep(void)
{
	for (size_t i = 0; environ && environ[i]; i++) {
		char *name = NULL;
		int rc;

		if (!begins(environ[i], OURS))
			continue;
		if (asprintf(&name, CARRIER "%.*s", (int)strcspn(environ[i], "="), environ[i]) < 0)
			return -1;
		rc = setenv(name, value_of(environ[i]), 1);
		free(name);
		if (rc < 0)
			return -1;
	}
	return 0;
}

/*
 * Copies the variables that begin with CARRIER OURS: changes to the environment may move
 * its entries. Returns an array that ends with NULL, or NULL without memory.
 */
static char **copy_carried(char **environment)
{
	size_t count = 0, used = 0;
	char **carried;

	for (char **entry = environment; entry && *entry; entry++)
		count += begins(*entry, CARRIER OURS);
	carried = calloc(count + 1, sizeof(*carried));
	for (char **entry = environment; carried && used < count; entry++)
		if (begins(*entry, CARRIER OURS) && !(carried[used++] = strdup(*entry)))
			break;
	return carried;
}

/* In slurmstepd, before anyone looks at the step's variables. */
void export_restore(spank_t sp)
{
	char **environment = NULL, **carried;

	if (spank_get_item(sp, S_JOB_ENV, &environment) != ESPANK_SUCCESS)
		return;
	carried = copy_carried(environment);
	for (char **entry = carried; entry && *entry; entry++) {
		char *name = name_of(*entry);

		if (name) {
			spank_setenv(sp, name + strlen(CARRIER), value_of(*entry), 0);
			spank_unsetenv(sp, name);
		}
		free(name);
		free(*entry);
	}
	free(carried);
}
