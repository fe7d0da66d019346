/* SPDX-License-Identifier: Apache-2.0 */
/*
 * answer.c - asks the helper for the container, and takes its answer.
 */
#include "task.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Fails in the way that the helper or the library answered. */
static int fail_answer(struct task_error *error, const char *text, const char *hint)
{
	error->shared = true;
	snprintf(error->hint, sizeof(error->hint), "%s", hint ? hint : "");
	return fail(error, "%s", text);
}

/*
 * Tells the helper where this task is: its mount namespace, which differs from
 * slurmstepd's under job_container/tmpfs, and its working directory.
 */
int answer_ask(int socket, const char *hello, size_t length, struct task_error *error)
{
	autoclose int ns = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	autoclose int cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct iovec data = { .iov_base = (char *)hello, .iov_len = length };
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

_Static_assert(COUNT(namespaces) == ANSWER_NAMESPACES, "one of each");

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

/* Says why a helper has ended without an answer, as far as its standard error tells. */
static int fail_ended(int errors, struct task_error *error)
{
	/* The words of the Go runtime, and of its start of threads (runtime/cgo). */
	static const char *const words[] = { "out of memory", "cannot allocate memory",
					     "pthread_create failed" };
	char text[HELPER_MESSAGES + 1];
	ssize_t length = errors < 0 ? 0 : pread(errors, text, sizeof(text) - 1, 0);

	text[length > 0 ? length : 0] = '\0';
	for (size_t i = 0; i < COUNT(words); i++)
		if (strstr(text, words[i]))
			return fail_answer(
				error, "the helper has run out of memory: its limit is 256 MiB",
				"something that this step uses is too large: its environment, "
				"an option or the description of its image; nothing ordinary "
				"takes a tenth of that");
	return fail_answer(
		error, "the helper ended without an answer",
		"it was killed, perhaps for lack of memory; the node's kernel log tells");
}

/* Waits for the helper: this is where a task waits while an image is pulled. */
int answer_receive(int socket, int errors, struct answer *answer, struct task_error *error)
{
	struct iovec data = { .iov_base = answer->text, .iov_len = sizeof(answer->text) };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(ANSWER_FDS * sizeof(int))];
	} control;
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	/* ECONNRESET tells, once, that the helper ended without having read the hello;
	 * what it answered is still there. */
	do {
		answer->length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	} while (answer->length < 0 && (errno == EINTR || errno == ECONNRESET));
	if (answer->length < 0)
		return fail_errno(error, "receive from the helper");
	if (answer->length == 0)
		return fail_ended(errors, error);
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

int answer_check(struct answer *answer, struct task_error *error)
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
	if (answer->count != ANSWER_OTHERS + answer->others)
		return fail(error, "internal error: the helper answered without a container");
	return 0;
}
