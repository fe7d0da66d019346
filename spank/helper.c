/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helper.c - starts the helper of a step and tells it what was asked for.
 *
 * Nothing here is Go: slurmstepd stays without a second runtime, its threads and
 * its signal handlers (docs/decisions/0005-no-go-in-slurmstepd.md).
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef BROLGA_HELPER
#error "define BROLGA_HELPER, the absolute path of brolga-helper"
#endif

/* All of the environment that the privileged helper gets. It lives for
 * milliseconds and uses little memory, so it collects no garbage until it comes near the
 * limit that it sets itself (pkg/command). */
static char *const environment[] = {
	"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "GOGC=off", "GOMAXPROCS=2", NULL,
};

/* Descriptors of the helper: its request, nothing, nothing, the tasks' socket. */
enum { FD_REQUEST, FD_OUTPUT, FD_ERRORS, FD_SOCKET, FD_COUNT };

struct start {
	char *arguments[3];
	int fds[FD_COUNT];
	int error; /* errno of what failed, 0 once the helper executes */
	int process; /* the helper's pidfd, or -1 before Linux 5.2 */
};

/*
 * How long the end of a step waits, in milliseconds: for its helper, which may have to
 * end a save first, for a helper that was killed, and for what that had started.
 */
enum { HELPER_END = 15000, KILLED_END = 2000, OTHERS_END = 2000 };

/* The pidfd of the step's helper, from helper_start to helper_finish. */
static int helper = -1;

/* Puts the descriptors where the helper expects them and closes all others. */
static int place_descriptors(const int fds[FD_COUNT])
{
	int high[FD_COUNT];

	/* Out of the way first: one may have the number of another's place. */
	for (int i = 0; i < FD_COUNT; i++)
		if ((high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FD_COUNT)) < 0)
			return -1;
	for (int i = 0; i < FD_COUNT; i++)
		if (dup2(high[i], i) < 0)
			return -1;
	/* Before Linux 5.9 there is no such call; slurmstepd opens its files with
	 * O_CLOEXEC, so this is a second line of defence. */
	syscall(SYS_close_range, FD_COUNT, ~0u, 0);
	return 0;
}

/*
 * Runs in a child that shares slurmstepd's memory until it executes the helper,
 * as after vfork(2): system calls only.
 */
static int execute(void *argument)
{
	struct start *start = argument;

	if (setsid() >= 0 && place_descriptors(start->fds) == 0)
		execve(BROLGA_HELPER, start->arguments, environment);
	start->error = errno;
	_exit(127);
}

/*
 * Starts the helper and returns when it executes, or -1 with errno set.
 *
 * CLONE_PARENT makes it slurmstepd's sibling. slurmstepd waits for any child,
 * and reaping one that is no task costs it a pause of 0.1 s
 * (docs/decisions/0003-helper-beside-slurmstepd.md). Signals stay blocked so
 * that no handler of slurmstepd runs in the child; the helper unblocks them.
 */
static int start_helper(struct start *start)
{
	static char stack[16384] __attribute__((aligned(16)));
	sigset_t all, before;
	int pid, error;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	start->process = -1;
	pid = clone(execute, stack + sizeof(stack),
		    CLONE_VM | CLONE_VFORK | CLONE_PARENT | CLONE_PIDFD | SIGCHLD, start,
		    &start->process);
	error = pid < 0 ? errno : start->error;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return error ? -1 : 0;
}

static int refuse(char *reply, size_t size, const char *what)
{
	memset(reply, 0, size);
	snprintf(reply, size, "error=%s: %s", what, strerror(errno));
	return -1;
}

/*
 * Returns a memory file of fixed size for what the Go runtime says of a crash, or -1 where
 * there can be none. The beginning of the words is enough.
 */
int helper_messages(void)
{
	int file = (int)syscall(SYS_memfd_create, "brolga-helper-errors",
				MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (file >= 0 && (ftruncate(file, HELPER_MESSAGES) < 0 ||
			  fcntl(file, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK) < 0))
		close_fd(&file);
	return file;
}

/*
 * The helper inherits a duplicate of errors, its standard error, if that is a descriptor,
 * and of tasks, its end of the pair that it answers
 * tasks on; the caller closes its own copy. Returns the descriptor on which the
 * helper waits for its request, for helper_tell, or -1 with a reply.
 */
int helper_start(int tasks, int errors, char *reply, size_t size)
{
	autoclose int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	autoclose int theirs = -1;
	int request[2];

	/* A socket, because writing to it raises no SIGPIPE in slurmstepd. */
	if (null < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, request) < 0)
		return refuse(reply, size, "start the helper");
	theirs = request[1];
	struct start start = { .arguments = { BROLGA_HELPER, "step" },
			       .fds = { theirs, null, errors < 0 ? null : errors, tasks } };

	if (start_helper(&start) < 0) {
		close_fd(&start.process);
		close(request[0]);
		return refuse(reply, size, "start the helper " BROLGA_HELPER);
	}
	close_fd(&helper);
	helper = start.process;
	return request[0];
}

/*
 * Sends the request and ends it; a helper that gets none, because the descriptor is
 * closed before, ends. A helper that died meanwhile is no error here: tasks see
 * that nobody answers them.
 */
int helper_tell(int request, const struct message *m, char *reply, size_t size)
{
	size_t sent = 0;

	if (m->failed) {
		memset(reply, 0, size);
		snprintf(reply, size,
			 "error=the options and the environment of the step are too large: "
			 "the limit is 8 MiB%chint=submit with --export=NONE, or unset what the "
			 "step does not need",
			 '\0');
		return -1;
	}
	/* The helper reads as soon as it runs: a long message waits for that only. */
	while (sent < m->length) {
		ssize_t n = send(request, m->data + sent, m->length - sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EPIPE || errno == ECONNRESET
				       ? 0
				       : refuse(reply, size, "tell the helper what to do");
		sent += (size_t)n;
	}
	shutdown(request, SHUT_WR);
	return 0;
}

/* Repeats in Slurm's log the lines that come until end-of-file, and closes the file. */
void helper_repeat(int from)
{
	char line[4096];
	FILE *lines = fdopen(from, "r");

	if (!lines) {
		close(from);
		return;
	}
	while (fgets(line, sizeof(line), lines)) {
		line[strcspn(line, "\n")] = '\0';
		slurm_error("brolga: %s", line);
	}
	fclose(lines);
}

/* Reports whether a process ends within so many milliseconds, by its pidfd. */
static bool ends(int process, int limit)
{
	struct pollfd end = { .fd = process, .events = POLLIN };
	int rc;

	while ((rc = poll(&end, 1, limit)) < 0 && errno == EINTR)
		;
	return rc != 0;
}

/* Finds the list of threads in this one's freezer cgroup, if Slurm made that. */
static bool find_members(char *path, size_t size)
{
	static char line[PATH_MAX];
	FILE *cgroups = fopen("/proc/self/cgroup", "re");
	const char *name = NULL;

	/* Lines of cgroup v1 are NUMBER:CONTROLLERS:PATH (cgroups(7)). */
	while (cgroups && !name && fgets(line, sizeof(line), cgroups)) {
		line[strcspn(line, "\n")] = '\0';
		name = strstr(line, ":freezer:/");
	}
	if (cgroups)
		fclose(cgroups);
	if (!name || !strstr(name, "/job_"))
		return false;
	snprintf(path, size, "/sys/fs/cgroup/freezer%s/tasks", name + strlen(":freezer:"));
	return true;
}

/*
 * Reports whether all threads in the list are this process's. Unlike the list of
 * processes it has those that are ending.
 */
static bool is_alone(const char *path)
{
	FILE *members = fopen(path, "re");
	static char own[64];
	bool alone = true;
	int id;

	while (members && alone && fscanf(members, "%d", &id) == 1) {
		snprintf(own, sizeof(own), "/proc/self/task/%d", id);
		alone = access(own, F_OK) == 0;
	}
	if (members)
		fclose(members);
	return alone;
}

/*
 * Waits until the job's freezer cgroup has no other process: what a killed helper had
 * started dies a moment after it. Other steps of the job may have theirs there.
 */
static void wait_for_others(void)
{
	static const struct timespec pause = { .tv_nsec = 2000000 };
	static char path[PATH_MAX + 64];

	if (!find_members(path, sizeof(path)))
		return;
	for (int waited = 0; waited < OTHERS_END && !is_alone(path); waited += 2)
		nanosleep(&pause, NULL);
}

/* Reports whether the helper has written the empty line that comes last, if it can. */
static bool has_said_end(int request)
{
	static char notes[2 * PATH_MAX];
	ssize_t n = recv(request, notes, sizeof(notes), MSG_PEEK | MSG_DONTWAIT);

	return n > 0 && notes[n - 1] == '\n' && (n == 1 || notes[n - 2] == '\n');
}

/*
 * Tells the helper that the step is over, waits for it, and kills it if it does not end.
 *
 * Without that it would end when nobody holds the tasks' socket, but a user can give a
 * copy of that to a process of another step. Shut down, the socket of the request hangs
 * up at the helper's end; what the helper has written there can still be read.
 *
 * With cgroup v1 the helper is in the job's freezer cgroup, as slurmstepd was when it
 * started it. slurmstepd removes that cgroup next, and only once: with a process in it,
 * the cgroup would stay for ever.
 */
static void end_helper(int request)
{
	bool killed;

	if (helper < 0)
		return;
	killed = ends(helper, 0) && !has_said_end(request);
	shutdown(request, SHUT_RDWR);
	if (!ends(helper, HELPER_END)) {
		slurm_error("brolga: kill the helper: it does not end");
		syscall(SYS_pidfd_send_signal, helper, SIGKILL, NULL, 0);
		killed = true;
		if (!ends(helper, KILLED_END))
			slurm_error("brolga: the helper was killed and still runs");
	}
	close_fd(&helper);
	if (killed)
		wait_for_others();
}

/*
 * Ends the helper, if there is one, and runs what it has left to do in its socket, if
 * that is one. The helper that does it reads there what the first one wrote.
 */
void helper_finish(int request)
{
	autoclose int null = -1;
	struct start start = { .arguments = { BROLGA_HELPER, "poststop" } };
	int report[2];
	char some[2]; /* more than the line that says the end */
	int rc;

	end_helper(request);
	if (recv(request, some, sizeof(some), MSG_PEEK | MSG_DONTWAIT) <= 1)
		return;
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (null < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, report) < 0) {
		slurm_error("brolga: run what hooks do at poststop: %m");
		return;
	}
	memcpy(start.fds, (int[]){ request, null, null, report[1] }, sizeof(start.fds));
	rc = start_helper(&start);
	close(report[1]);
	if (rc < 0)
		slurm_error("brolga: run what hooks do at poststop: " BROLGA_HELPER ": %m");
	helper_repeat(report[0]);
	/* It is in the job's cgroup for a moment after it has closed its end. */
	if (start.process >= 0)
		ends(start.process, KILLED_END);
	close_fd(&start.process);
}
