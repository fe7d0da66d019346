/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job.c - facts of the step, from Slurm to the message for the library.
 */
#include "shim.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Step numbers with a meaning of their own (slurm/slurm.h). */
#define STEP_BATCH 0xfffffffbu
#define STEP_EXTERN 0xfffffffcu

/* The extern step runs nothing of the user's. */
bool job_is_container_step(spank_t sp)
{
	uint32_t step = 0;

	return spank_get_item(sp, S_JOB_STEPID, &step) == ESPANK_SUCCESS && step != STEP_EXTERN;
}

bool job_is_batch_step(spank_t sp)
{
	uint32_t step = 0;

	return spank_get_item(sp, S_JOB_STEPID, &step) == ESPANK_SUCCESS && step == STEP_BATCH;
}

/*
 * The name that slurmd runs under. In Slurm 20.11 only tasks are told it; there it is
 * the host's, which slurmd takes unless it is given another.
 */
const char *job_node(void)
{
	static char host[HOST_NAME_MAX + 1];
	const char *node = getenv("SLURMD_NODENAME");

	if (node)
		return node;
	if (gethostname(host, sizeof(host)) < 0)
		return "";
	host[strcspn(host, ".")] = '\0';
	return host;
}

/* Number of tasks on this node, or -1. */
int job_local_tasks(spank_t sp)
{
	uint32_t tasks = 0;

	if (spank_get_item(sp, S_JOB_LOCAL_TASK_COUNT, &tasks) != ESPANK_SUCCESS)
		return -1;
	return (int)tasks;
}

/* Number of the calling task on this node, or -1. */
int job_local_task(spank_t sp)
{
	int task = -1;

	return spank_get_item(sp, S_TASK_ID, &task) == ESPANK_SUCCESS ? task : -1;
}

static int add_number(struct message *m, spank_t sp, spank_item_t item, const char *key)
{
	uint32_t value = 0;

	if (spank_get_item(sp, item, &value) != ESPANK_SUCCESS)
		return -1;
	message_add_number(m, key, value);
	return 0;
}

/* The numbers are Slurm's, the names are the node's. */
static int add_identity(struct message *m, spank_t sp)
{
	gid_t *groups = NULL;
	int count = 0;
	uid_t uid;
	gid_t gid;

	if (spank_get_item(sp, S_JOB_UID, &uid) != ESPANK_SUCCESS ||
	    spank_get_item(sp, S_JOB_GID, &gid) != ESPANK_SUCCESS ||
	    spank_get_item(sp, S_JOB_SUPPLEMENTARY_GIDS, &groups, &count) != ESPANK_SUCCESS)
		return -1;
	message_add_number(m, "uid", uid);
	message_add_number(m, "gid", gid);
	for (int i = 0; i < count; i++)
		message_add_number(m, "group", groups[i]);
	account_add(m, uid, gid, groups, count);
	return 0;
}

/*
 * The script of a batch step is the first argument, in slurmd's spool directory;
 * slurmd wrote it there and named it, so the path can be trusted. In other steps
 * the first argument is what the user typed.
 */
static int add_program(struct message *m, spank_t sp)
{
	uint32_t step = 0;
	char **arguments = NULL;
	int count = 0;

	if (spank_get_item(sp, S_JOB_STEPID, &step) != ESPANK_SUCCESS)
		return -1;
	if (spank_get_item(sp, S_JOB_ARGV, &count, &arguments) != ESPANK_SUCCESS || count < 1)
		return step == STEP_BATCH ? -1 : 0;
	message_add(m, step == STEP_BATCH ? "script" : "command", arguments[0]);
	return 0;
}

/* slurmstepd's own; it is in no header of Slurm's for plugins. */
extern char *slurm_get_tmp_fs(char *node) __attribute__((weak));

/* Where Slurm makes files for a step on this node: TmpFS of slurm.conf(5). */
static void add_tmp_fs(struct message *m, const char *node)
{
	char *path = slurm_get_tmp_fs ? slurm_get_tmp_fs((char *)node) : NULL;

	if (path)
		message_add(m, "tmp_fs", path); /* Slurm's to free, which knows how */
}

void job_add_environment(struct message *m, char **environment)
{
	for (; environment && *environment; environment++)
		message_add(m, "env", *environment);
}

/* Adds all that the library is told of the step; remote context only. */
int job_add_facts(struct message *m, spank_t sp)
{
	static const struct {
		spank_item_t item;
		const char *key;
	} numbers[] = {
		{ S_JOB_ID, "job" },
		{ S_JOB_STEPID, "step" },
		{ S_JOB_NNODES, "nodes" },
		{ S_JOB_LOCAL_TASK_COUNT, "tasks" },
	};
	const char *node = job_node();
	char **environment = NULL;

	for (size_t i = 0; i < COUNT(numbers); i++)
		if (add_number(m, sp, numbers[i].item, numbers[i].key) < 0)
			return -1;
	if (add_identity(m, sp) < 0 || add_program(m, sp) < 0)
		return -1;
	if (spank_get_item(sp, S_JOB_ENV, &environment) != ESPANK_SUCCESS)
		return -1;
	/* For named containers only: a step without them runs without these facts. */
	add_number(m, sp, S_JOB_NODEID, "node_id");
	add_number(m, sp, S_SLURM_RESTART_COUNT, "restart");
	message_add(m, "node", node);
	add_tmp_fs(m, node);
	job_add_environment(m, environment);
	return 0;
}
