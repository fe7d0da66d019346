/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shim.h - what the files of the shim share.
 *
 * The shim decides nothing. It hands option strings and facts to the library
 * (library.c) where a step is submitted and to the helper (helper.c) on a node,
 * and later carries out the plan that the helper answers each task with
 * (join.c). PROTOCOL.md describes the messages.
 */
#ifndef BROLGA_SHIM_H
#define BROLGA_SHIM_H

#include <slurm/spank.h>

#include "../task/task.h"

/* ---- options.c: what srun, sbatch and salloc understand ---- */

int options_register(spank_t sp);
bool options_given(void);
bool options_in_environment(spank_t sp);
void options_recover(spank_t sp);
void options_add(struct message *m);
void options_free(void);

/* ---- request.c: what is asked for ---- */

int request_configure(int ac, char **av);
const char *request_config(void);
void request_add(struct message *m, const char *context);

/* ---- report.c: what is wrong ---- */

void report(const char *error, const char *hint);
void report_reply(const char *reply, size_t size);

/* ---- submit.c: srun, sbatch and salloc ---- */

void submit_step(spank_t sp);
int submit_nodes(spank_t sp, const char *nodes);

/* ---- job.c: facts of the step ---- */

bool job_is_container_step(spank_t sp);
bool job_is_batch_step(spank_t sp);
int job_add_facts(struct message *m, spank_t sp);
void job_add_environment(struct message *m, char **environment);
const char *job_node(void);
int job_local_tasks(spank_t sp);
int job_local_task(spank_t sp);

/* ---- export.c: our variables and --export ---- */

void export_forget(spank_t sp);
int export_to_step(const char *entry);
void export_to_job(spank_t sp, const char *entry);
int export_keep(void);
void export_restore(spank_t sp);

/* ---- peers.c: the nodes of a step, and what their helpers share ---- */

void peers_add(struct message *m, const char *nodes);
void peers_forget(spank_t sp);

/* ---- account.c: names of the user and the groups ---- */

void account_add(struct message *m, uid_t uid, gid_t gid, const gid_t *groups, int count);

/* ---- library.c: libbrolga.so, in srun, sbatch and salloc ---- */

/*
 * Calls into the library, which is loaded on first use and stays. Writes records
 * to reply and returns 0, or writes the records "error" and perhaps "hint" and
 * returns -1.
 */
int library_submit(const struct message *m, char *reply, size_t size);
int library_launch(const struct message *m, char *reply, size_t size);

/* ---- helper.c: brolga-helper, in slurmstepd ---- */

/* Both write the record "error" to reply where they return -1. */
int helper_start(int tasks, int errors, char *reply, size_t size);
int helper_messages(void);
int helper_tell(int request, const struct message *m, char *reply, size_t size);
void helper_finish(int request);
void helper_repeat(int from);

/* ---- epilog.c: the end of a job on a node ---- */

int epilog_run(const char *config, const char *node, uint32_t job);

/* ---- launch.c: what Slurm executes instead of the command ---- */

int launch_by(spank_t sp, const char *launcher, int plan, int socket, const char *stepd);

/* ---- renumber.c: numbers in lists ---- */

int renumber(char *out, size_t size, const char *list, const char *map);

/* ---- join.c: between fork(2) and execve(2) ---- */

int join_prepare(struct task_error *error);

/* errors is the helper's standard error, or -1. */
int join_container(spank_t sp, int socket, int errors, bool reports, struct task_error *error);

/* ---- prolog.c: the TaskProlog of the site, and the user's ---- */

int prolog_run(spank_t sp, struct task_error *error);
void prolog_prepare(void);

#endif
