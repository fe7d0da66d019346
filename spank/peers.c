/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers.c - the nodes of a step, for helpers that speak to each other.
 *
 * srun asks slurmctld for the addresses, once, because it alone knows those of
 * cloud and dynamic nodes; a node that asked would be one of thousands.
 */
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <slurm/slurm.h>

/* What variables begin with that are for the helpers of a step alone. */
#define SHARED "BROLGA_STEP_"

/*
 * Adds what slurmctld says of the nodes' addresses. A site may keep it from its
 * users (slurm.conf(5), PrivateData): then nodes are reached by their names.
 */
static void add_addresses(struct message *m)
{
	node_info_msg_t *nodes = NULL;

	if (slurm_load_node(0, &nodes, SHOW_ALL) != SLURM_SUCCESS)
		return;
	for (uint32_t i = 0; i < nodes->record_count; i++) {
		const node_info_t *node = &nodes->node_array[i];

		if (!node->name || !node->node_addr || strcmp(node->name, node->node_addr) == 0)
			continue;
		message_add(m, "node_name", node->name);
		message_add(m, "node_address", node->node_addr);
	}
	slurm_free_node_info_msg(nodes);
}

/* In srun. nodes are those of the job, of which its steps have some or all; NULL:
 * not known yet. */
void peers_add(struct message *m, const char *nodes)
{
	message_add(m, "node_list", nodes ? nodes : "");
	add_addresses(m);
}

/* In slurmstepd, when the helper knows them: no task shall have them. */
void peers_forget(spank_t sp)
{
	char **environment = NULL;
	char *name;

	do {
		name = NULL;
		if (spank_get_item(sp, S_JOB_ENV, &environment) != ESPANK_SUCCESS)
			return;
		for (; environment && *environment && !name; environment++)
			if (strncmp(*environment, SHARED, strlen(SHARED)) == 0)
				name = strndup(*environment, strcspn(*environment, "="));
		if (name && spank_unsetenv(sp, name) != ESPANK_SUCCESS) {
			free(name);
			return;
		}
		free(name);
	} while (name); /* the entries have moved */
}
