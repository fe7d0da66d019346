/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helper_test.c - starting the helper and telling it what to do.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "helper_notes.h"

static char reply[ANSWER_MAX];

/* Starts the helper as plugin.c does; returns where its request goes. */
static int start(int *tasks)
{
	int pair[2], request;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		give_up("socketpair");
	request = helper_start(pair[1], -1, reply, sizeof(reply));
	close(pair[1]);
	*tasks = pair[0];
	return request;
}

static void expect_message(const char *want, size_t length)
{
	size_t got_length;
	char *got = helper_message(&got_length);

	CHECK(got_length == length && memcmp(got, want, length) == 0);
	free(got);
}

static void gets_its_request(void)
{
	struct message m = { 0 };
	int tasks, request;

	helper_install("fake_helper");
	request = start(&tasks);
	CHECK(request >= 0);
	message_add(&m, "job", "5");
	CHECK(helper_tell(request, &m, reply, sizeof(reply)) == 0);
	close(request);
	expect_message("job=5", sizeof("job=5"));
	CHECK(!helper_has_ended());
	close(tasks);
	helper_wait_for_end();
	message_free(&m);
}

/* It gets four descriptors, its verb and an environment that nobody chose. */
static void inherits_nothing_else(void)
{
	int tasks, leak = open("/dev/null", O_RDONLY); /* without O_CLOEXEC */
	char *note;

	setenv("LD_PRELOAD_OF_THE_USER", "x", 1);
	helper_install("fake_helper");
	close(start(&tasks));
	note = helper_start_note();
	CHECK_TEXT(strchr(note, '\n') + 1, "argument step\n"
					   "fd 0\nfd 1\nfd 2\nfd 3\n"
					   "env PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"
					   "env LC_ALL=C.UTF-8\nenv GOGC=off\n"
					   "env GOMAXPROCS=2\n");
	free(note);
	close(leak);
	close(tasks);
}

/* More than a socket holds: the sender waits for the reader. */
static void long_request(void)
{
	static char value[7 << 20];
	struct message m = { 0 };
	int tasks, request;

	memset(value, 'x', sizeof(value) - 1);
	helper_install("fake_helper");
	request = start(&tasks);
	message_add(&m, "env", value);
	CHECK(helper_tell(request, &m, reply, sizeof(reply)) == 0);
	close(request);
	expect_message(m.data, m.length);
	message_free(&m);
	close(tasks);
}

static void missing(void)
{
	int tasks;

	helper_install(NULL);
	CHECK(start(&tasks) == -1);
	CHECK_TEXT(reply, "error=start the helper " BROLGA_HELPER ": No such file or directory");
}

static void not_executable(void)
{
	int tasks;

	helper_install("fake_library.c");
	CHECK(start(&tasks) == -1);
	CHECK_TEXT(reply, "error=start the helper " BROLGA_HELPER ": Permission denied");
}

/* slurmstepd does not die of the signal, and tasks find out themselves. */
static void dies_before_it_is_told(void)
{
	struct message m = { 0 };
	int tasks, request;

	helper_install("fake_helper");
	request = start(&tasks);
	helper_kill();
	message_add(&m, "job", "5");
	CHECK(helper_tell(request, &m, reply, sizeof(reply)) == 0);
	message_free(&m);
}

/* A message that lost a part is not sent: it could ask for less than was given. */
static void request_too_large(void)
{
	struct message m = { .failed = true };
	int tasks, request;

	helper_install("fake_helper");
	request = start(&tasks);
	CHECK(helper_tell(request, &m, reply, sizeof(reply)) == -1);
	CHECK_TEXT(record_find(reply, sizeof(reply), "error"),
		   "the options and the environment of the step are too large: the limit is 8 MiB");
	CHECK(record_find(reply, sizeof(reply), "hint") != NULL);
	close(request);
	expect_message("", 0);
	close(tasks);
}

static void leaves_the_process_alone(void)
{
	sigset_t before, after;
	int tasks, request;

	sigemptyset(&before);
	sigaddset(&before, SIGUSR1);
	sigprocmask(SIG_SETMASK, &before, NULL);
	helper_install("fake_helper");
	request = start(&tasks);
	sigprocmask(SIG_SETMASK, NULL, &after);
	CHECK(sigismember(&after, SIGUSR1) == 1 && sigismember(&after, SIGTERM) == 0);
	CHECK(fcntl(request, F_GETFD) == FD_CLOEXEC);
	close(request);
	close(tasks);
}

static void end_of_step_waits(void)
{
	int tasks, request;

	helper_install("fake_helper");
	request = start(&tasks);
	shutdown(request, SHUT_WR);
	free(helper_start_note());
	close(tasks);
	helper_finish(request);
	CHECK(helper_has_ended());
	close(request);
}

int main(void)
{
	static const struct test tests[] = {
		{ "the helper gets its request and sees its tasks go", gets_its_request },
		{ "the end of the step waits for the helper's", end_of_step_waits },
		{ "the helper inherits nothing else", inherits_nothing_else },
		{ "a long request arrives whole", long_request },
		{ "a missing helper is named", missing },
		{ "a helper that cannot be executed is named", not_executable },
		{ "a helper that dies first harms nobody", dies_before_it_is_told },
		{ "a request that is not whole is not sent", request_too_large },
		{ "signals and descriptors of the process stay", leaves_the_process_alone },
	};

	return run_tests("helper_test", tests, COUNT(tests));
}
