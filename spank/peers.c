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

/*
 * In slurmstepd, when the helper knows them: takes them from the tasks. A user can set any
 * number of them, and spank_unsetenv(3) looks through all variables for each. So they are
 * taken out of Slurm's own array, which is what spank_unsetenv does. Their strings are
 * Slurm's and stay until slurmstepd ends.
 */
void peers_forget(spank_t sp)
{
	char **environment = NULL;
	size_t kept = 0;

	if (spank_get_item(sp, S_JOB_ENV, &environment) != ESPANK_SUCCESS || !environment)
		return;
	for (char **variable = environment; *variable; variable++)
		if (strncmp(*variable, SHARED, strlen(SHARED)) != 0)
			environment[kept++] = *variable;
	environment[kept] = NULL;
}
