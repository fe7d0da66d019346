/* SPDX-License-Identifier: Apache-2.0 */
/*
 * submit.c - srun, sbatch and salloc: says no before anything is submitted, and has the
 * nodes told what they cannot find out.
 */
#include "shim.h"

#include <stdlib.h>
#include <unistd.h>

extern char **environ;

/* The nodes of the step have to know each other, and may do so already. */
static bool wants_peers, knows_peers;

/*
 * Ends srun, sbatch or salloc as they would end themselves after a failed
 * callback, less the two lines they would add to the one that says what is
 * wrong. Nothing has been submitted yet, so nothing is left behind.
 */
__attribute__((noreturn)) static void end_submission(void)
{
	const char *status = getenv("SLURM_EXIT_ERROR"); /* srun(1) */

	_exit(status && atoi(status) > 0 ? atoi(status) : EXIT_FAILURE);
}

/* Sets the variables that the library has answered. */
static int set_variables(spank_t sp, const char *reply, size_t size)
{
	const char *at = reply, *key, *value;
	size_t length;
	int rc = 0;

	while ((value = record_next(&at, reply + size, &key, &length)))
		if (record_is(key, length, "env") && export_to_step(value) < 0)
			rc = -1;
		else if (record_is(key, length, "job"))
			export_to_job(sp, value);
	if (rc < 0 || export_keep() < 0) {
		report("no memory for the environment", NULL);
		return -1;
	}
	return 0;
}

/* Has the step told where its nodes are; NULL: where all nodes of the cluster are. */
static int tell_peers(spank_t sp, const char *nodes)
{
	static char reply[128 << 10]; /* as long as a variable may be (execve(2)) */
	struct message m = { 0 };
	int rc;

	message_add(&m, "context", "launch");
	peers_add(&m, nodes);
	rc = library_launch(&m, reply, sizeof(reply));
	message_free(&m);
	if (rc < 0) {
		report_reply(reply, sizeof(reply));
		return -1;
	}
	return set_variables(sp, reply, sizeof(reply));
}

/* Asks the library about the step, and ends the process if it says no. */
void submit_step(spank_t sp)
{
	static char reply[64 << 10]; /* a whole environment definition file */
	static int submitted;
	struct message m = { 0 };
	int rc;

	request_add(&m, "submit");
	if (spank_context() == S_CTX_LOCAL)
		message_add(&m, "launches", "1");
	job_add_environment(&m, environ);
	rc = library_submit(&m, reply, sizeof(reply));
	message_free(&m);
	if (rc < 0) {
		if (record_find(reply, sizeof(reply), "done"))
			_exit(EXIT_SUCCESS);
		if (!record_find(reply, sizeof(reply), "reported"))
			report_reply(reply, sizeof(reply));
		end_submission();
	}
	wants_peers = record_find(reply, sizeof(reply), "peers") != NULL;
	if (set_variables(sp, reply, sizeof(reply)) < 0)
		end_submission();
	/* srun asks again for each component of a heterogeneous step, whose environments
	 * it makes before it knows nodes, and calls slurm_spank_local_user_init once. */
	if (wants_peers && submitted++ && !knows_peers) {
		knows_peers = true;
		if (tell_peers(sp, NULL) < 0)
			end_submission();
	}
}

/* Has the step told where its nodes are, if they have to know each other. */
int submit_nodes(spank_t sp, const char *nodes)
{
	return wants_peers && !knows_peers ? tell_peers(sp, nodes) : 0;
}
