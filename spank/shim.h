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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include <slurm/spank.h>

/* Headers of before Linux 5.9, those of Debian 11 and RHEL 8 for example, have no name
 * for it. The kernel that it runs on may know it, and says ENOSYS if not. */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Longest answer of the library or the helper: an error and a hint. */
#define ANSWER_MAX 8192

/* How much is kept of what the helper says on its standard error. */
#define HELPER_MESSAGES 4096

/* Limit of what a task tells the helper. */
#define HELLO_MAX 16384

#define autoclose __attribute__((cleanup(close_fd)))
void close_fd(int *fd);

/* ---- wire.c: NUL-terminated key=value records ---- */

/* A growing message. Zero-initialise it; message_free releases it. */
struct message {
	char *data;
	size_t length;
	size_t size;
	bool failed; /* no memory, or a value longer than a message may be */
};

void message_add(struct message *m, const char *key, const char *value);
void message_add_number(struct message *m, const char *key, unsigned long value);
void message_free(struct message *m);

/*
 * Iterates over the records in [*at, end). Returns the value of the next record
 * and stores its key's length in *key_length, the key starting at *key; returns
 * NULL at the end or where the message is malformed (*at != end then).
 */
const char *record_next(const char **at, const char *end, const char **key, size_t *key_length);

/* Tells whether the key of a record that record_next returned is name. */
bool record_is(const char *key, size_t key_length, const char *name);

/* Returns the value of the first record with that name, or NULL. NUL may follow them. */
const char *record_find(const char *records, size_t size, const char *name);

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

/* ---- remap.c: root of a user namespace ---- */

int remap_limit(void);
int remap_pretend(void);

/* ---- join.c: between fork(2) and execve(2) ---- */

struct join_error {
	char text[ANSWER_MAX];
	char hint[ANSWER_MAX];
	bool shared; /* all tasks of the node fail alike: one of them reports it */
};

int join_prepare(struct join_error *error);

/* errors is the helper's standard error, or -1. */
int join_container(spank_t sp, int socket, int errors, bool reports, struct join_error *error);

/* ---- prolog.c: the TaskProlog of the site, and the user's ---- */

int prolog_run(spank_t sp, struct join_error *error);
void prolog_prepare(void);

/* ---- filter.c: the site's seccomp profile ---- */

int filter_install(const char *filter, struct join_error *error);

/* ---- label.c: the site's AppArmor profile and SELinux label ---- */

#define LABEL_MAX 4096

int label_open(void);
int label_set(int attributes, const char *apparmor, const char *selinux, struct join_error *error);

/* ---- answer.c: what the helper says to a task ---- */

__attribute__((format(printf, 2, 3))) int fail(struct join_error *error, const char *format, ...);

#define fail_errno(error, format, ...) fail(error, format ": %s", ##__VA_ARGS__, strerror(errno))

/* How many kinds of namespaces a task may join beside the one of mounts. */
#define ANSWER_NAMESPACES 5

/* The mount namespace, the plan, and one of each other namespace. */
enum { ANSWER_MOUNT, ANSWER_PLAN, ANSWER_OTHERS, ANSWER_FDS = ANSWER_OTHERS + ANSWER_NAMESPACES };

struct answer {
	char text[ANSWER_MAX];
	ssize_t length;
	int fds[ANSWER_FDS];
	int count; /* of descriptors */
	int others; /* of namespaces named */
	int types[ANSWER_NAMESPACES];
};

int answer_ask(int socket, const char *hello, size_t length, struct join_error *error);
int answer_receive(int socket, int errors, struct answer *answer, struct join_error *error);
int answer_check(struct answer *answer, struct join_error *error);

#endif
