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
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* setns(2) to a mount namespace asks for both. */
#define JOIN_CAPABILITIES ((1u << CAP_SYS_ADMIN) | (1u << CAP_SYS_CHROOT))

__attribute__((format(printf, 2, 3))) static int fail(struct join_error *error, const char *format,
						      ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	return -1;
}

#define fail_errno(error, format, ...) fail(error, format ": %s", ##__VA_ARGS__, strerror(errno))

/* Fails in the way that the helper or the library answered. */
static int fail_answer(struct join_error *error, const char *text, const char *hint)
{
	error->shared = true;
	snprintf(error->hint, sizeof(error->hint), "%s", hint ? hint : "");
	return fail(error, "%s", text);
}

static int set_capabilities(unsigned int low)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { .effective = low, .permitted = low } };

	return (int)syscall(SYS_capset, &header, data);
}

static int clear_inheritable(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { 0 } };

	if (syscall(SYS_capget, &header, data) < 0)
		return -1;
	data[0].inheritable = data[1].inheritable = 0;
	return (int)syscall(SYS_capset, &header, data);
}

/* What slurmstepd calls itself (prctl(2), PR_GET_NAME), before this task changes it. */
static char stepd_name[16];

/*
 * Identity: root with all capabilities, of which slurmstepd still needs SETUID
 * and SETGID: the bounding set does not take those it has, only those that an
 * execve(2) could bring back.
 */
int join_prepare(struct join_error *error)
{
	prctl(PR_GET_NAME, stepd_name);
	/* proctrack/linuxproc does not kill processes named slurmstepd, and this
	 * one may wait for a long pull. */
	prctl(PR_SET_NAME, "brolga-task");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return fail_errno(error, "clear ambient capabilities");
	if (clear_inheritable() < 0)
		return fail_errno(error, "clear inheritable capabilities");
	/* The first number that the kernel does not know gives EINVAL. */
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap) < 0)
			return fail_errno(error, "drop capability %d from the bounding set", cap);
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

/*
 * Tells the helper where this task is: its mount namespace, which differs from
 * slurmstepd's under job_container/tmpfs, and its working directory.
 */
static int send_hello(spank_t sp, int socket, struct join_error *error)
{
	static char text[HELLO_MAX];
	autoclose int ns = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	autoclose int cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct iovec data = { .iov_base = text, .iov_len = write_hello(sp, text, sizeof(text)) };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	if (ns < 0)
		return fail_errno(error, "open /proc/self/ns/mnt");
	if (cwd < 0)
		return fail_errno(error, "open the working directory");
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(2 * sizeof(int));
	memcpy(CMSG_DATA(&control.header), (int[]){ ns, cwd }, 2 * sizeof(int));
	/* EPIPE: the helper is gone; what it answered before may still be there. */
	while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return errno == EPIPE ? 0 : fail_errno(error, "send to the helper");
	return 0;
}

/* What a task may join beside the mount namespace, by its name in the answer. */
static const struct {
	const char *name;
	int type;
} namespaces[] = {
	{ "net", CLONE_NEWNET }, { "ipc", CLONE_NEWIPC },   { "uts", CLONE_NEWUTS },
	{ "pid", CLONE_NEWPID }, { "user", CLONE_NEWUSER },
};

/* The mount namespace, the plan, and one of each other namespace. */
enum { FD_MOUNT, FD_PLAN, FD_OTHERS, FD_MAX = FD_OTHERS + COUNT(namespaces) };

struct answer {
	char text[ANSWER_MAX];
	ssize_t length;
	int fds[FD_MAX];
	int count; /* of descriptors */
	int others; /* of namespaces named */
	int types[COUNT(namespaces)];
};

static void take_descriptors(struct msghdr *message, struct answer *answer)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(message);
	size_t size;

	if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
		return;
	size = header->cmsg_len - CMSG_LEN(0);
	if (size > sizeof(answer->fds))
		return;
	memcpy(answer->fds, CMSG_DATA(header), size);
	answer->count = (int)(size / sizeof(int));
}

/* Waits for the helper: this is where a task waits while an image is pulled. */
static int receive_answer(int socket, struct answer *answer, struct join_error *error)
{
	struct iovec data = { .iov_base = answer->text, .iov_len = sizeof(answer->text) };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(FD_MAX * sizeof(int))];
	} control;
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	do {
		answer->length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	} while (answer->length < 0 && errno == EINTR);
	if (answer->length < 0 && errno != ECONNRESET)
		return fail_errno(error, "receive from the helper");
	if (answer->length <= 0)
		return fail_answer(
			error, "the helper ended without an answer",
			"it was killed, perhaps for lack of memory; the node's kernel log tells");
	take_descriptors(&message, answer);
	return 0;
}

static void add_namespace(struct answer *answer, const char *name)
{
	for (size_t i = 0; i < COUNT(namespaces); i++)
		if (strcmp(namespaces[i].name, name) == 0 &&
		    answer->others < (int)COUNT(namespaces))
			answer->types[answer->others++] = namespaces[i].type;
}

static int check_answer(struct answer *answer, struct join_error *error)
{
	const char *at = answer->text, *end = answer->text + answer->length;
	const char *key, *value, *text = NULL, *hint = NULL;
	size_t length;

	while ((value = record_next(&at, end, &key, &length))) {
		if (record_is(key, length, "error"))
			text = value;
		else if (record_is(key, length, "hint"))
			hint = value;
		else if (record_is(key, length, "namespace"))
			add_namespace(answer, value);
	}
	if (text)
		return fail_answer(error, text, hint);
	/* Descriptors come only with a good answer, and then all. */
	if (answer->count != FD_OTHERS + answer->others)
		return fail(error, "internal error: the helper answered without a container");
	return 0;
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

/*
 * Carries out the plan. It is mapped, not read: all tasks share one descriptor
 * and so one file position.
 */
static int apply_plan(spank_t sp, const struct answer *answer, int socket, bool reports,
		      struct join_error *error)
{
	struct stat status;
	const char *plan, *at, *end, *key, *value, *workdir = "/", *launcher = NULL;
	bool forks = false;
	size_t length;

	if (fstat(answer->fds[FD_PLAN], &status) < 0 || status.st_size <= 0)
		return fail(error, "internal error: the helper's plan is empty");
	plan = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, answer->fds[FD_PLAN], 0);
	if (plan == MAP_FAILED)
		return fail_errno(error, "map the helper's plan");
	at = plan;
	end = plan + status.st_size;
	while ((value = record_next(&at, end, &key, &length))) {
		if (record_is(key, length, "workdir"))
			workdir = value;
		else if (record_is(key, length, "launch"))
			launcher = value;
		else if (record_is(key, length, "fork"))
			forks = true;
		else
			apply_record(sp, reports, key, length, value);
	}
	if (at != end)
		return fail(error, "internal error: the helper's plan is malformed");
	/* The mapping is left to execve(2): workdir points into it. */
	if (chdir(workdir) < 0)
		return fail_errno(error, "enter working directory %s", workdir);
	if (launcher &&
	    launch_by(sp, launcher, answer->fds[FD_PLAN], forks ? socket : -1, stepd_name) < 0)
		return fail(error, "Slurm does not let the command be started by %s", launcher);
	return 0;
}

/* Joins the namespaces that the answer names; tells whether one is of users. */
static int enter_others(const struct answer *answer, bool *user, struct join_error *error)
{
	for (int i = 0; i < answer->others; i++) {
		if (setns(answer->fds[FD_OTHERS + i], answer->types[i]) < 0)
			return fail_errno(error, "join a namespace of the container");
		if (answer->types[i] == CLONE_NEWUSER)
			*user = true;
	}
	return 0;
}

static int enter_namespaces(const struct answer *answer, struct join_error *error)
{
	bool user = false;

	if (set_capabilities(JOIN_CAPABILITIES) < 0)
		return fail_errno(error, "raise the capabilities for joining");
	if (setns(answer->fds[FD_MOUNT], CLONE_NEWNS) < 0)
		return fail_errno(error, "join the container's mount namespace");
	/* From here on all paths are the image's: nothing below is trusted. */
	if (answer->others && enter_others(answer, &user, error) < 0)
		return -1;
	if (user) {
		if (remap_limit() < 0)
			return fail_errno(error, "limit the capabilities of the container's root");
	} else if (set_capabilities(0) < 0) {
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
int join_container(spank_t sp, int socket, bool reports, struct join_error *error)
{
	static struct answer answer;

	if (send_hello(sp, socket, error) < 0 || receive_answer(socket, &answer, error) < 0)
		return -1;
	if (check_answer(&answer, error) < 0 || enter_namespaces(&answer, error) < 0)
		return -1;
	return apply_plan(sp, &answer, socket, reports, error);
}
