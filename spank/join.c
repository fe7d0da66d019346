/* SPDX-License-Identifier: Apache-2.0 */
/*
 * join.c - brings one task into the container of its step.
 *
 * Everything here runs in a child of slurmstepd between fork(2) and execve(2).
 * It allocates nothing, takes no lock, starts no thread and never calls Go.
 * (spank_setenv allocates; Slurm's own code does in this place too.)
 *
 * The capabilities that entering a namespace needs survive slurmstepd's
 * change to the user because of PR_SET_KEEPCAPS, and are given up for good
 * before the user's program runs: a task never runs user code with them.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* setns(2) to a mount namespace asks for both. */
#define JOIN_CAPABILITIES ((1u << CAP_SYS_ADMIN) | (1u << CAP_SYS_CHROOT))

/*
 * Since 24.11 slurmstepd has handlers for most signals (conmgr/signals.c), which only
 * tell another thread of its own, not there after fork(2): scancel would do nothing
 * to a task that waits. execve(2) would do the same as this, later.
 */
static void reset_signals(void)
{
	struct sigaction action;

	for (int number = 1; number < NSIG; number++)
		if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			signal(number, SIG_DFL);
}

/* What slurmstepd calls itself (prctl(2), PR_GET_NAME), before this task changes it. */
static char stepd_name[16];

/*
 * Identity: root with all capabilities, of which slurmstepd still needs SETUID
 * and SETGID: the bounding set does not take those it has, only those that an
 * execve(2) could bring back.
 */
int join_prepare(struct task_error *error)
{
	reset_signals();
	prctl(PR_GET_NAME, stepd_name);
	/* proctrack/linuxproc does not kill processes named slurmstepd, and this
	 * one may wait for a long pull. */
	prctl(PR_SET_NAME, "brolga-task");
	if (capabilities_clear_inheritable() < 0)
		return fail_errno(error, "clear inheritable capabilities");
	if (capabilities_bound(0, error) < 0)
		return -1;
	if (prctl(PR_SET_KEEPCAPS, 1) < 0)
		return fail_errno(error, "keep capabilities for joining");
	return 0;
}

/*
 * Writes the hello. Where a PMIx server is, Slurm knows only now, after it has
 * started that: the variables go along. What has no room is left out.
 */
static size_t write_hello(spank_t sp, char *text, size_t size)
{
	static const char first[] = "hello=1", key[] = "env=", ours[] = "PMIX_";
	char **environment = NULL;
	size_t used = sizeof(first);

	memcpy(text, first, used);
	if (spank_get_item(sp, S_JOB_ENV, &environment) != ESPANK_SUCCESS)
		return used;
	for (; environment && *environment; environment++) {
		size_t length = strlen(*environment) + 1;

		if (strncmp(*environment, ours, strlen(ours)) != 0 ||
		    used + strlen(key) + length > size)
			continue;
		memcpy(text + used, key, strlen(key));
		memcpy(text + used + strlen(key), *environment, length);
		used += strlen(key) + length;
	}
	return used;
}

/* Splits NAME=VALUE; returns the value, or NULL. */
static const char *split_variable(char *name, size_t size, const char *variable)
{
	const char *equals = strchr(variable, '=');

	if (!equals || (size_t)(equals - variable) >= size)
		return NULL;
	memcpy(name, variable, (size_t)(equals - variable));
	name[equals - variable] = '\0';
	return equals + 1;
}

/* A list that is longer than those of GPUs is not one, and stays as it is. */
static void renumber_variable(spank_t sp, const char *name, const char *map)
{
	static char before[4096], after[4096];

	if (spank_getenv(sp, name, before, sizeof(before)) == ESPANK_SUCCESS &&
	    renumber(after, sizeof(after), before, map) == 0)
		spank_setenv(sp, name, after, 1);
}

/* Plan records that change the task's environment or tell the user something. */
static void apply_record(spank_t sp, bool reports, const char *key, size_t length,
			 const char *value)
{
	static char name[4096];
	const char *rest = split_variable(name, sizeof(name), value);

	if (record_is(key, length, "set") && rest) {
		spank_setenv(sp, name, rest, 1);
	} else if (record_is(key, length, "renumber") && rest) {
		renumber_variable(sp, name, rest);
	} else if (record_is(key, length, "unset")) {
		spank_unsetenv(sp, value);
	} else if (record_is(key, length, "warning") && reports) {
		slurm_spank_log("brolga: warning: %s", value);
	} else if (record_is(key, length, "notice") && reports) {
		slurm_spank_log("brolga: %s", value);
	} else if (record_is(key, length, "info") && reports) {
		slurm_info("brolga: %s", value);
	} else if (record_is(key, length, "debug") && reports) {
		slurm_debug("brolga: %s", value);
	}
}

/* Has Slurm execute the launcher, if the plan wants it. */
static int apply_launch(spank_t sp, struct plan plan, int fd, int socket, struct task_error *error)
{
	const char *launcher = plan_find(plan, "launch");
	/* Then the launcher stays, and needs the helper. */
	bool stays = plan_find(plan, "fork") || plan_find(plan, "save");

	if (launcher && launch_by(sp, launcher, fd, stays ? socket : -1, stepd_name) < 0)
		return fail(error, "Slurm does not let the command be started by %s", launcher);
	return 0;
}

/* Carries out the plan. */
static int apply_plan(spank_t sp, const struct answer *answer, int socket, int attributes,
		      bool reports, struct task_error *error)
{
	const char *key, *value, *workdir, *filter;
	struct plan plan, rest;
	size_t length;

	if (plan_open(answer->fds[ANSWER_PLAN], &plan, error) < 0)
		return -1;
	rest = plan;
	while ((value = record_next(&rest.at, rest.end, &key, &length)))
		apply_record(sp, reports, key, length, value);
	workdir = plan_find(plan, "workdir");
	if (chdir(workdir ? workdir : "/") < 0)
		return fail_errno(error, "enter working directory %s", workdir ? workdir : "/");
	if (apply_launch(sp, plan, answer->fds[ANSWER_PLAN], socket, error) < 0 ||
	    label_set(attributes, plan_find(plan, "apparmor"), plan_find(plan, "selinux"), error) <
		    0)
		return -1;
	/* Last: what it forbids is no longer needed, except by Slurm's own execve(2). */
	filter = plan_find(plan, "seccomp");
	return filter ? filter_install(filter, error) : 0;
}

/* Joins the namespaces that the answer names; tells whether one is of users. */
static int enter_others(const struct answer *answer, bool *user, struct task_error *error)
{
	for (int i = 0; i < answer->others; i++) {
		if (setns(answer->fds[ANSWER_OTHERS + i], answer->types[i]) < 0)
			return fail_errno(error, "join a namespace of the container");
		if (answer->types[i] == CLONE_NEWUSER)
			*user = true;
	}
	return 0;
}

static int enter_namespaces(const struct answer *answer, struct task_error *error)
{
	bool user = false;

	if (capabilities_set(JOIN_CAPABILITIES) < 0)
		return fail_errno(error, "raise the capabilities for joining");
	if (setns(answer->fds[ANSWER_MOUNT], CLONE_NEWNS) < 0)
		return fail_errno(error, "join the container's mount namespace");
	/* From here on all paths are the image's: nothing below is trusted. */
	if (answer->others && enter_others(answer, &user, error) < 0)
		return -1;
	if (user) {
		if (remap_limit(error) < 0)
			return -1;
	} else if (capabilities_set(0) < 0) {
		return fail_errno(error, "drop capabilities");
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail_errno(error, "set no_new_privs");
	if (user && remap_pretend() < 0)
		return fail_errno(error, "install the system call filter");
	return 0;
}

/*
 * Identity: the job's user, with the capabilities that join_prepare kept. The
 * helper may answer with an error; reports says whether this task is the one
 * that repeats the helper's messages to the user.
 */
int join_container(spank_t sp, int socket, int errors, bool reports, struct task_error *error)
{
	static struct answer answer;
	static char hello[HELLO_MAX];
	autoclose int attributes = label_open();

	if (answer_ask(socket, hello, write_hello(sp, hello, sizeof(hello)), error) < 0 ||
	    answer_receive(socket, errors, &answer, error) < 0)
		return -1;
	if (answer_check(&answer, error) < 0 || enter_namespaces(&answer, error) < 0)
		return -1;
	return apply_plan(sp, &answer, socket, attributes, reports, error);
}
