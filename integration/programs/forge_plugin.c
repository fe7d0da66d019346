/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forge_plugin.c - a client that is not our plugin: it registers all options of ours
 * under our name, checks none of their values, and asks nobody about the image.
 *
 * A user loads it into their own srun by a copy of slurm.conf. It sets the variables in
 * the file FORGED, "NAME=VALUE" and a NUL byte each, which may be longer than execve(2)
 * allows. A name that begins with "SPANK:" goes to the job's prologs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <slurm/spank.h>

SPANK_PLUGIN(brolga, 1)

static const struct {
	const char *name;
	const char *argument;
	int has_argument;
	const char *usage;
	const char *variable;
} table[] = {
#include "../../spank/options.inc"
};

static int believe(int row, const char *value, int remote)
{
	(void)row, (void)value, (void)remote;
	return 0;
}

int slurm_spank_init(spank_t sp, int ac, char **av)
{
	(void)ac, (void)av;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct spank_option option = {
			.name = (char *)table[i].name,
			.usage = (char *)table[i].usage,
			.arginfo = "VALUE",
			.has_arg = 2, /* flags get values, too */
			.val = (int)i,
			.cb = believe,
		};

		spank_option_register(sp, &option);
	}
	return 0;
}

static void set(spank_t sp, char *entry)
{
	static const char job[] = "SPANK:";
	char *value = strchr(entry, '=');

	if (!value)
		return;
	*value++ = '\0';
	if (strncmp(entry, job, strlen(job)) == 0)
		spank_job_control_setenv(sp, entry + strlen(job), value, 1);
	else
		setenv(entry, value, 1);
}

int slurm_spank_init_post_opt(spank_t sp, int ac, char **av)
{
	const char *path = getenv("FORGED");
	FILE *file = path ? fopen(path, "r") : NULL;
	char *entry = NULL;
	size_t size = 0;

	(void)ac, (void)av;

	while (file && getdelim(&entry, &size, '\0', file) > 0)
		set(sp, entry);
	free(entry);
	if (file)
		fclose(file);
	return 0;
}
