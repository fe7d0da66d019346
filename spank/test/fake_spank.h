/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_spank.h - the part of Slurm that the shim calls, told what to answer.
 */
#ifndef BROLGA_TEST_FAKE_SPANK_H
#define BROLGA_TEST_FAKE_SPANK_H

#include <slurm/slurm.h>
#include <slurm/spank.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fake_spank {
	spank_context_t context;
	/* What spank_get_item answers. */
	uint32_t job, step, nodes, tasks, uid, gid;
	uint32_t node_id, restart; /* refused until they are not 0 */
	gid_t *groups;
	int group_count;
	char **argv;
	int argc;
	char **env; /* also what spank_getenv finds */
	const char *kept_variable; /* spank_setenv finds it set */
	int task;
	uint64_t failing; /* bits 1 << item: these are refused */
	/* What slurm_load_node answers; without any it fails. */
	node_info_t *cluster;
	uint32_t cluster_size;
	/* Which option spank_option_register refuses. */
	const char *refused_option;
	/* What was registered. */
	struct spank_option options[64];
	size_t option_count;
};

/* Starts as task 0 of 2 of step 5.0 of user 1000 in slurmstepd. */
extern struct fake_spank fake;

/* Makes spank_get_item fail for an item. */
void fake_refuse(spank_item_t item);

/* Calls the callback of a registered option, as Slurm would; -2: no such. */
int fake_give(const char *option, const char *value);

/*
 * All that was logged, lines of "LEVEL: TEXT". Processes that were forked after
 * the first call write to the same log.
 */
const char *fake_log(void);

/* What spank_setenv set, or spank_unsetenv left: NULL where neither did. */
const char *fake_variable(const char *name);

#endif
