/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - what the site and the user ask for, as the library and the helper are
 * told.
 */
#include "shim.h"

#include <string.h>

#include "brolga.h"

/* The site configuration that plugstack.conf names, or NULL. */
static const char *config_path;

/* Takes the arguments in plugstack.conf. Returns -1 if one is not known. */
int request_configure(int ac, char **av)
{
	for (int i = 0; i < ac; i++) {
		if (strncmp(av[i], "config=/", strlen("config=/")) == 0) {
			config_path = av[i] + strlen("config=");
			continue;
		}
		slurm_error("brolga: plugstack.conf: unknown argument \"%s\": want config=/PATH",
			    av[i]);
		return -1;
	}
	return 0;
}

const char *request_config(void)
{
	return config_path;
}

void request_add(struct message *m, const char *context)
{
	message_add(m, "context", context);
	message_add_number(m, "abi", BROLGA_ABI);
	if (config_path)
		message_add(m, "config", config_path);
	options_add(m);
}
