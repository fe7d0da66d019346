/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plugin.c - the callbacks of the SPANK plugin, and nothing else.
 *
 * All of them return 0 or -1. A positive value would make Slurm before 25.05 log
 * a failure and then run the task on the host. In slurmstepd the callbacks that
 * run before tasks are forked always return 0 and remember what went wrong: a
 * failure there would drain the node for a batch job, and srun before 23.11
 * would exit 0. task_init fails instead, per task and with words.
 *
 * It does so by ending the task itself, as slurmstepd would next: then the user
 * reads one line and not three, and the task also dies where the plugin stands
 * as "optional" in plugstack.conf, for which Slurm ignores failures.
 */
#include "shim.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

SPANK_PLUGIN(brolga, 1)

/* What slurmstepd knows of its step's container. */
static struct {
	bool wanted;
	int socket; /* the tasks' end of the pair, the helper has the other */
	int errors; /* what the helper's standard error is */
	int request; /* where the helper leaves what is to be done in the end */
	int forked; /* tasks */
	char reply[ANSWER_MAX]; /* why there is no helper, as records */
	bool failed;
} step = { .socket = -1, .errors = -1, .request = -1 };

static bool in_submit_context(void)
{
	return spank_context() == S_CTX_LOCAL || spank_context() == S_CTX_ALLOCATOR;
}

/*
 * slurm_spank_init - register the options.
 *
 * Process:  srun, sbatch, salloc, slurmd, slurmstepd of every step.
 * Identity: the user; root in slurmd and slurmstepd.
 * Go:       not loaded.
 * Failure:  ends srun, sbatch and salloc. Ignored in slurmstepd, see above.
 */
int slurm_spank_init(spank_t sp, int ac, char **av)
{
	int rc;

	if (!in_submit_context() && spank_context() != S_CTX_REMOTE)
		return 0;
	rc = request_configure(ac, av);
	/* Also after a mistake: a node that does not know the options of a step
	 * would run it on the host. */
	if (options_register(sp) < 0)
		rc = -1;
	if (rc < 0 && spank_context() == S_CTX_REMOTE) {
		snprintf(step.reply, sizeof(step.reply),
			 "error=the plugin is misconfigured on this node, see slurmd's log");
		step.failed = true;
		return 0;
	}
	return rc;
}

/*
 * slurm_spank_local_user_init - the step has its nodes and is about to start.
 *
 * Process:  srun, once. What it sets reaches the first component of a
 *           heterogeneous step only, see submit.c.
 * Identity: the user.
 * Go:       called, if the nodes have to know each other.
 * Failure:  ends srun, which gives up the step and its own allocation.
 */
int slurm_spank_local_user_init(spank_t sp, int ac, char **av)
{
	(void)ac, (void)av;

	return submit_nodes(sp, getenv("SLURM_NODELIST"));
}

/* In slurmstepd: start the helper, which works while Slurm starts the tasks. */
static int start(spank_t sp, char *reply, size_t size)
{
	struct message m = { 0 };
	autoclose int request = -1;
	const int yes = 1;
	int pair[2];
	int rc = -1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		snprintf(reply, size, "error=make a socket pair: %m");
		return -1;
	}
	/* The kernel says which task a hello is from; without that there is no hello. */
	if (setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) < 0) {
		snprintf(reply, size, "error=set up a socket: %m");
		close(pair[0]);
		close(pair[1]);
		return -1;
	}
	step.errors = helper_messages();
	request = helper_start(pair[1], step.errors, reply, size);
	/* Only the helper may hold its end: tasks learn of its death by that. */
	close(pair[1]);
	step.socket = pair[0];
	if (request < 0)
		return -1;
	/* The helper needs longer to start than this takes. */
	request_add(&m, "node");
	if (job_add_facts(&m, sp) < 0)
		snprintf(reply, size, "error=Slurm does not tell the facts of this step");
	else
		rc = helper_tell(request, &m, reply, size);
	if (m.data)
		explicit_bzero(m.data, m.length); /* tasks are forks of this process */
	message_free(&m);
	if (rc == 0) {
		step.request = request;
		request = -1;
	}
	return rc;
}

/*
 * slurm_spank_init_post_opt - all options are known: check them or act on them.
 *
 * Process:  srun, sbatch, salloc; slurmstepd of every step, before tasks exist.
 * Identity: the user; root in slurmstepd.
 * Go:       loaded and called in srun, sbatch and salloc, if a container was
 *           asked for; never in slurmstepd.
 * Failure:  ends srun, sbatch and salloc; remembered in slurmstepd.
 */
int slurm_spank_init_post_opt(spank_t sp, int ac, char **av)
{
	(void)ac, (void)av;

	if (in_submit_context())
		export_forget(sp);
	if (spank_context() == S_CTX_REMOTE && job_is_container_step(sp)) {
		export_restore(sp);
		if (job_is_batch_step(sp) && !options_given())
			options_recover(sp);
	}
	if (!options_given() && !options_in_environment(sp))
		return 0;
	if (in_submit_context()) {
		submit_step(sp);
		return 0;
	}
	if (spank_context() != S_CTX_REMOTE || !job_is_container_step(sp))
		return 0;
	step.wanted = true;
	if (!step.failed && start(sp, step.reply, sizeof(step.reply)) < 0)
		step.failed = true;
	peers_forget(sp);
	return 0;
}

/*
 * slurm_spank_task_post_fork - give up slurmstepd's end of the socket pair, and the
 * helper's messages. Each task has both.
 *
 * The helper ends when the last task has let go of it, not when the step does.
 * All tasks are forked before this is called for the first of them.
 *
 * Process:  slurmstepd, once per task.
 * Identity: root.
 * Go:       not called.
 * Failure:  none.
 */
int slurm_spank_task_post_fork(spank_t sp, int ac, char **av)
{
	(void)ac, (void)av;

	if (step.wanted && ++step.forked == job_local_tasks(sp)) {
		close_fd(&step.socket);
		close_fd(&step.errors);
	}
	return 0;
}

/* Ends the calling task. Tasks that fail alike leave the words to the first. */
__attribute__((noreturn)) static void end_task(spank_t sp, bool shared, const char *error,
					       const char *hint)
{
	if (!shared || job_local_task(sp) <= 0)
		report(error, hint);
	_exit(EXIT_FAILURE);
}

/*
 * slurm_spank_task_init_privileged - make sure that nothing can be gained later.
 *
 * Process:  child of slurmstepd, one per task, not in its cgroups yet.
 * Identity: root.
 * Go:       never.
 * Failure:  ends the task, and srun reports it.
 */
int slurm_spank_task_init_privileged(spank_t sp, int ac, char **av)
{
	static struct task_error error;

	(void)ac, (void)av;

	if (!step.wanted || step.failed)
		return 0;
	if (join_prepare(&error) < 0)
		end_task(sp, false, error.text, NULL);
	return 0;
}

/*
 * slurm_spank_task_init - move one task into the container of its step.
 *
 * Process:  child of slurmstepd, one per task; execve(2) of the user's command
 *           comes next.
 * Identity: the job's user, with the capabilities kept for joining.
 * Go:       never.
 * Failure:  ends the task, and srun reports it.
 */
int slurm_spank_task_init(spank_t sp, int ac, char **av)
{
	static struct task_error error;
	int status;

	(void)ac, (void)av;

	if (!step.wanted)
		return 0;
	if (step.failed)
		end_task(sp, true, record_find(step.reply, sizeof(step.reply), "error"),
			 record_find(step.reply, sizeof(step.reply), "hint"));
	status = prolog_run(sp, &error);
	if (status) {
		report(error.text, NULL);
		_exit(status);
	}
	prolog_prepare();
	if (join_container(sp, step.socket, step.errors, job_local_task(sp) == 0, &error) < 0)
		end_task(sp, error.shared, error.text, error.hint);
	return 0;
}

/*
 * slurm_spank_job_epilog - remove what the job keeps on this node: its named
 * containers. Slurm calls it wherever a job ends, also after scancel and before a
 * requeued job starts again.
 *
 * Process:  one that slurmd starts for this.
 * Identity: root.
 * Go:       in a process of its own.
 * Failure:  only logged: anything but 0 would drain the node. What is left is
 *           removed at the end of a later job.
 */
int slurm_spank_job_epilog(spank_t sp, int ac, char **av)
{
	uint32_t job = 0;

	if (request_configure(ac, av) == 0 &&
	    spank_get_item(sp, S_JOB_ID, &job) == ESPANK_SUCCESS &&
	    epilog_run(request_config(), job_node(), job) < 0)
		slurm_error("brolga: remove containers of job %u: the helper has failed", job);
	return 0;
}

/*
 * slurm_spank_exit - do what is left to do. Slurm unloads the plugin next.
 *
 * In slurmstepd all processes of the step are gone; programs that a hook wants to be
 * run then have as long as the site allows, and the job's epilog comes after them.
 *
 * Process:  all that called slurm_spank_init.
 * Identity: the user; root in slurmstepd.
 * Go:       not called.
 * Failure:  only logged.
 */
int slurm_spank_exit(spank_t sp, int ac, char **av)
{
	(void)sp, (void)ac, (void)av;

	close_fd(&step.socket);
	close_fd(&step.errors);
	helper_finish(step.request);
	close_fd(&step.request);
	options_free();
	return 0;
}
