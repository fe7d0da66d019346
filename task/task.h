/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task.h - what a task does before it executes its command, in a step and without
 * Slurm: it asks the helper for the container, and carries out the plan that the
 * helper answers with. spank/PROTOCOL.md describes both.
 *
 * The plugin (spank/) and the launcher (cmd/brolga-launch) share it. Nothing here
 * calls Slurm. In the plugin it runs between fork(2) and execve(2): it allocates
 * nothing, takes no lock and starts no thread, except for messages that are built
 * before, by message_add.
 */
#ifndef BROLGA_TASK_H
#define BROLGA_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>

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

/* ---- descriptors.c ---- */

#define autoclose __attribute__((cleanup(close_fd)))
void close_fd(int *fd);

/* ---- error.c: what is wrong ---- */

struct task_error {
	char text[ANSWER_MAX];
	char hint[ANSWER_MAX];
	bool shared; /* all tasks of the node fail alike: one of them reports it */
};

__attribute__((format(printf, 2, 3))) int fail(struct task_error *error, const char *format, ...);

#define fail_errno(error, format, ...) fail(error, format ": %s", ##__VA_ARGS__, strerror(errno))

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

/* ---- plan.c: what the helper wants done, as records ---- */

/* A plan from its next record on. A copy starts where the original is. */
struct plan {
	const char *at;
	const char *end;
};

/*
 * Maps a plan, which stays until execve(2): values point into it. It is not read,
 * since all tasks share one descriptor and so one file position.
 */
int plan_open(int fd, struct plan *plan, struct task_error *error);

/* Returns the value of the next record with that key, or NULL. */
const char *plan_next(struct plan *plan, const char *key);

/* Returns the value of the first record with that key, or NULL. */
const char *plan_find(struct plan plan, const char *key);

/* ---- capabilities.c ---- */

int capabilities_set(unsigned int wanted);
int capabilities_clear_inheritable(void);
int capabilities_bound(unsigned int kept, struct task_error *error);

/* ---- remap.c: root of a user namespace ---- */

int remap_limit(struct task_error *error);
int remap_pretend(void);

/* ---- filter.c: the site's seccomp profile ---- */

int filter_install(const char *filter, struct task_error *error);

/* ---- label.c: the site's AppArmor profile and SELinux label ---- */

#define LABEL_MAX 4096

int label_open(void);
int label_set(int attributes, const char *apparmor, const char *selinux, struct task_error *error);

/* ---- answer.c: what the helper says to a task ---- */

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

int answer_ask(int socket, const char *hello, size_t length, struct task_error *error);
int answer_receive(int socket, int errors, struct answer *answer, struct task_error *error);
int answer_check(struct answer *answer, struct task_error *error);

#endif
