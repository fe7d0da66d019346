/* SPDX-License-Identifier: Apache-2.0 */
/*
 * join_test.c - a task enters a container. The task is a real one: a child that
 * prepares as root, becomes another user as slurmstepd does and joins a mount
 * namespace. The helper is played by the test.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "fake_spank.h"

#define NOBODY 65534

/* A message with its length: answers and plans contain NUL. */
struct bytes {
	const char *data;
	size_t length;
};
#define BYTES(text) ((struct bytes){ text, sizeof(text) - 1 })

static const struct bytes ready = { "ready=1", 8 };

/* What the helper does and who the task is. */
struct scenario {
	const char *crash; /* what the helper has written to its standard error */
	struct bytes answer; /* without one the helper ends */
	struct bytes plan;
	bool descriptors; /* the answer comes with the namespace and the plan */
	bool swapped; /* in the wrong order */
	bool only_one;
	const char *other; /* a namespace that comes third */
	bool gone; /* the helper has ended before the task comes */
	bool deaf; /* the helper answers and ends without having read the hello */
	bool interrupted; /* signals arrive while the task waits */
	bool reports;
	uid_t uid;
	bool no_arguments; /* Slurm does not tell those of the task */
};

/* What became of the task; shared with it. */
struct outcome {
	int rc;
	struct task_error error;
	bool is_killable; /* slurmstepd's handlers are gone */
	char name[32], capabilities[256], no_new_privs[32];
	char cwd[256];
	bool inside; /* the container's marker is there, the host's is not */
	char path[64], removed[64];
	bool path_set, removed_set;
	int signals;
	char command[64], launch[512]; /* argument 0 and what the launcher is told */
	bool plan_is_inherited, socket_is_inherited;
	bool pretends; /* a change of owner that cannot be succeeds */
};
static struct outcome *outcome;

static char host_dir[] = "/tmp/brolga-join-test.XXXXXX";
static int namespace_fd = -1;

/* ---- the container ---- */

static void mkdir_or_give_up(const char *path)
{
	if (mkdir(path, 0755) < 0 || chmod(path, 0755) < 0)
		give_up("make %s", path);
}

/* In a child: covers the host's directory, says so and waits. */
__attribute__((noreturn)) static void hold_namespace(int ready_pipe)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("test", host_dir, "tmpfs", 0, "mode=0755") < 0 || chdir(host_dir) < 0)
		give_up("make a mount namespace");
	mkdir_or_give_up("inside");
	mkdir_or_give_up("work");
	if (mkdir("closed", 0700) < 0 || write(ready_pipe, "x", 1) != 1)
		give_up("prepare the mount namespace");
	for (;;)
		pause();
}

static void make_container(void)
{
	char path[64];
	int pair[2];
	pid_t pid;

	if (!mkdtemp(host_dir) || chmod(host_dir, 0755) < 0 || chdir(host_dir) < 0)
		give_up("make a directory");
	mkdir_or_give_up("outside");
	if (pipe2(pair, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		give_up("fork");
	if (pid == 0)
		hold_namespace(pair[1]);
	close(pair[1]);
	if (read(pair[0], path, 1) != 1)
		give_up("no container");
	close(pair[0]);
	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
	namespace_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (namespace_fd < 0)
		give_up("open %s", path);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void remove_container(void)
{
	if (rmdir("outside") < 0 || chdir("/") < 0 || rmdir(host_dir) < 0)
		perror("remove the test's directory");
}

/* ---- the task ---- */

static void count_signal(int number)
{
	(void)number;
	outcome->signals++;
}

/* Copies the lines of /proc/self/status that start with prefix to out. */
static void copy_status(const char *prefix, char *out, size_t size)
{
	FILE *in = fopen("/proc/self/status", "re");
	char line[256];

	if (!in)
		return;
	while (fgets(line, sizeof(line), in))
		if (strncmp(line, prefix, strlen(prefix)) == 0)
			strncat(out, line, size - strlen(out) - 1);
	fclose(in);
}

static void look_around(void)
{
	char path[64];
	const char *value;

	copy_status("Name:", outcome->name, sizeof(outcome->name));
	copy_status("Cap", outcome->capabilities, sizeof(outcome->capabilities));
	copy_status("NoNewPrivs:", outcome->no_new_privs, sizeof(outcome->no_new_privs));
	if (!getcwd(outcome->cwd, sizeof(outcome->cwd)))
		snprintf(outcome->cwd, sizeof(outcome->cwd), "%s", strerror(errno));
	snprintf(path, sizeof(path), "%s/inside", host_dir);
	outcome->inside = access(path, F_OK) == 0;
	snprintf(path, sizeof(path), "%s/outside", host_dir);
	outcome->inside = outcome->inside && access(path, F_OK) < 0;
	if ((value = fake_variable("PATH"))) {
		snprintf(outcome->path, sizeof(outcome->path), "%s", value);
		outcome->path_set = true;
	}
	outcome->removed_set = fake_variable("REMOVED") != NULL;
	outcome->pretends = chown(host_dir, 1, 1) == 0;
	snprintf(outcome->command, sizeof(outcome->command), "%s", fake.argv[0]);
	if ((value = fake_variable("BROLGA_LAUNCH"))) {
		snprintf(outcome->launch, sizeof(outcome->launch), "%s", strchr(value, ':'));
		outcome->plan_is_inherited = fcntl(atoi(value), F_GETFD) == 0;
		outcome->socket_is_inherited = fcntl(atoi(strchr(value, ',') + 1), F_GETFD) == 0;
	}
}

/* slurmstepd's order: the last call takes the right to the others. */
static void become(uid_t uid)
{
	gid_t group = uid;

	if (uid == 0)
		return;
	if (setgroups(1, &group) < 0 || setresgid(group, group, group) < 0 ||
	    setresuid(uid, uid, uid) < 0)
		give_up("become user %u", uid);
}

/* A site may give slurmstepd capabilities that an execve(2) passes on. */
static void raise_inheritable(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		give_up("read capabilities");
	data[0].inheritable = data[0].permitted;
	data[1].inheritable = data[1].permitted;
	if (syscall(SYS_capset, &header, data) < 0 ||
	    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0) < 0)
		give_up("raise capabilities");
}

/* What the helper has written to its standard error, or -1. */
static int said(const char *text)
{
	int file = text ? helper_messages() : -1;

	if (text && (file < 0 || write(file, text, strlen(text)) < 0))
		give_up("write the helper's messages");
	return file;
}

__attribute__((noreturn)) static void task(int socket, const struct scenario *s)
{
	struct sigaction action = { .sa_handler = count_signal }; /* no SA_RESTART */
	struct sigaction before;

	alarm(20);
	fake.argv = (char *[]){ "./app", "x", NULL };
	fake.env = (char *[]){ "PMI_RANK=0", "PMIX_RANK=1", "PATH=/bin", "PMIX_SERVER=s", NULL };
	fake.argc = s->no_arguments ? 0 : 2;
	sigaction(SIGUSR2, &action, NULL);
	spank_setenv(NULL, "REMOVED", "still there", 1);
	raise_inheritable();
	outcome->rc = join_prepare(&outcome->error);
	sigaction(SIGUSR2, NULL, &before);
	outcome->is_killable = before.sa_handler == SIG_DFL;
	sigaction(SIGUSR1, &action, NULL);
	if (outcome->rc == 0) {
		become(s->uid);
		outcome->rc = join_container(NULL, socket, said(s->crash), s->reports,
					     &outcome->error);
	}
	look_around();
	_exit(0);
}

/* ---- the helper ---- */

static void await_hello(int socket)
{
	struct pollfd there = { .fd = socket, .events = POLLIN };

	if (poll(&there, 1, -1) < 0)
		give_up("wait for the task");
}

/* Receives one hello and checks that it shows where the task is. */
static void receive_hello(int socket, pid_t pid)
{
	char text[64], control[256], path[64];
	struct iovec data = { text, sizeof(text) };
	struct msghdr message = { .msg_iov = &data,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header;
	struct stat got, want;
	int fds[2];

	static const char want_text[] = "hello=1\0env=PMIX_RANK=1\0env=PMIX_SERVER=s";

	CHECK(recvmsg(socket, &message, 0) == sizeof(want_text) &&
	      memcmp(text, want_text, sizeof(want_text)) == 0);
	header = CMSG_FIRSTHDR(&message);
	CHECK(header && header->cmsg_type == SCM_RIGHTS &&
	      header->cmsg_len == CMSG_LEN(sizeof(fds)));
	memcpy(fds, CMSG_DATA(header), sizeof(fds));
	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
	CHECK(fstat(fds[0], &got) == 0 && stat(path, &want) == 0 && got.st_ino == want.st_ino);
	CHECK(fstat(fds[1], &got) == 0 && stat(".", &want) == 0 && got.st_ino == want.st_ino);
	CHECK((fcntl(fds[1], F_GETFL) & O_PATH) != 0);
	close(fds[0]);
	close(fds[1]);
}

static int plan_file(const struct bytes *plan)
{
	int fd = memfd_create("plan", MFD_CLOEXEC);

	if (fd < 0 || write(fd, plan->data, plan->length) != (ssize_t)plan->length)
		give_up("write the plan");
	return fd; /* positioned at its end: the task must not rely on that */
}

static void send_answer(int socket, const struct scenario *s)
{
	char control[CMSG_SPACE(3 * sizeof(int))] = { 0 };
	struct iovec data = { (char *)s->answer.data, s->answer.length };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };
	int plan = plan_file(&s->plan);
	int fds[3] = { namespace_fd, plan, s->other ? open(s->other, O_RDONLY | O_CLOEXEC) : -1 };
	size_t size = (s->only_one ? 1 : s->other ? 3 : 2) * sizeof(int);

	if (s->swapped)
		fds[0] = plan, fds[1] = namespace_fd;
	if (s->descriptors) {
		struct cmsghdr *header = (struct cmsghdr *)control;

		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(size);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(header), fds, size);
	}
	if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
		give_up("answer the task");
	close(plan);
	close_fd(&fds[2]);
}

/* Sends signals until three have arrived: the task waits for the answer then. */
static void interrupt(pid_t pid)
{
	for (int i = 0; i < 500 && *(volatile int *)&outcome->signals < 3; i++) {
		kill(pid, SIGUSR1);
		usleep(10000);
	}
	CHECK(outcome->signals >= 3);
}

/* Runs one task and leaves in outcome what became of it. */
static void join(const struct scenario *s)
{
	int pair[2], status;
	pid_t pid;

	memset(outcome, 0, sizeof(*outcome));
	fake_log(); /* the task writes to it */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		give_up("make a socket pair");
	if (s->gone)
		close_fd(&pair[1]);
	if ((pid = fork()) < 0)
		give_up("fork");
	if (pid == 0) {
		close_fd(&pair[1]);
		task(pair[0], s);
	}
	close(pair[0]);
	if (s->deaf)
		await_hello(pair[1]);
	else if (!s->gone)
		receive_hello(pair[1], pid);
	if (s->interrupted)
		interrupt(pid);
	if (s->answer.length)
		send_answer(pair[1], s);
	close_fd(&pair[1]);
	if (waitpid(pid, &status, 0) < 0)
		give_up("wait for the task");
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- tests ---- */

static char plan_text[512];

/* A good plan that starts in directory dir of the container. */
static struct bytes plan_in(const char *dir)
{
	int n = snprintf(plan_text, sizeof(plan_text),
			 "workdir=%s/%s%cset=PATH=/opt/bin:/a=b%cunset=REMOVED%cset=noequals%c"
			 "unknown=record%cnotice=n%cwarning=w%cinfo=i%cdebug=d",
			 host_dir, dir, 0, 0, 0, 0, 0, 0, 0, 0);

	return (struct bytes){ plan_text, (size_t)n + 1 };
}

static void expect_no_privilege(void)
{
	CHECK_TEXT(outcome->capabilities, "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n"
					  "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n"
					  "CapAmb:\t0000000000000000\n");
	CHECK_TEXT(outcome->no_new_privs, "NoNewPrivs:\t1\n");
}

static void user_joins(void)
{
	char workdir[128];

	snprintf(workdir, sizeof(workdir), "%s/work", host_dir);
	join(&(struct scenario){
		.answer = ready, .plan = plan_in("work"), .descriptors = true, .uid = NOBODY });
	CHECK(outcome->rc == 0);
	CHECK_TEXT(outcome->error.text, "");
	CHECK(outcome->inside);
	CHECK_TEXT(outcome->cwd, workdir);
	CHECK(outcome->path_set);
	CHECK_TEXT(outcome->path, "/opt/bin:/a=b");
	CHECK(!outcome->removed_set);
	expect_no_privilege();
	CHECK_TEXT(outcome->name, "Name:\tbrolga-task\n");
	CHECK(outcome->is_killable);
	CHECK_TEXT(fake_log(), "");
}

static void root_joins(void)
{
	join(&(struct scenario){ .answer = ready, .plan = plan_in("work"), .descriptors = true });
	CHECK(outcome->rc == 0 && outcome->inside);
	expect_no_privilege();
}

static void reporter_speaks(void)
{
	join(&(struct scenario){ .answer = ready,
				 .plan = plan_in("work"),
				 .descriptors = true,
				 .uid = NOBODY,
				 .reports = true });
	CHECK(outcome->rc == 0);
	CHECK_TEXT(fake_log(), "spank: brolga: n\nspank: brolga: warning: w\n"
			       "info: brolga: i\ndebug: brolga: d\n");
}

/* As with Slurm before 23.11: the test has no spank_prepend_task_argv. */
static void launcher_first(void)
{
	struct scenario s = { .answer = ready,
			      .plan = BYTES("launch=/dev/launch\0entrypoint=x\0"),
			      .descriptors = true,
			      .uid = NOBODY };

	join(&s);
	CHECK(outcome->rc == 0);
	CHECK_TEXT(outcome->command, "/dev/launch");
	CHECK_TEXT(outcome->launch, ":./app");
	CHECK(outcome->plan_is_inherited && !outcome->socket_is_inherited);
	expect_no_privilege();
	s.plan = BYTES("launch=/dev/launch\0fork=1\0");
	join(&s);
	CHECK(outcome->plan_is_inherited && outcome->socket_is_inherited);
	s.plan = BYTES("entrypoint=x\0");
	join(&s);
	CHECK_TEXT(outcome->command, "./app");
	CHECK_TEXT(outcome->launch, "");
}

static void default_workdir(void)
{
	join(&(struct scenario){
		.answer = ready, .plan = BYTES("set=A=b\0"), .descriptors = true, .uid = NOBODY });
	CHECK(outcome->rc == 0);
	CHECK_TEXT(outcome->cwd, "/");
}

static void numbers_become_others(void)
{
	join(&(struct scenario){
		.answer = ready,
		.plan = BYTES("set=PATH=3,GPU-x,5,4\0renumber=PATH=5:0,3:1\0renumber=NONE=1:2\0"),
		.descriptors = true,
		.uid = NOBODY });
	CHECK(outcome->rc == 0);
	CHECK_TEXT(outcome->path, "1,GPU-x,0");
}

static void launcher_not_possible(void)
{
	join(&(struct scenario){ .answer = ready,
				 .plan = BYTES("launch=/dev/launch\0"),
				 .descriptors = true,
				 .no_arguments = true,
				 .uid = NOBODY });
	CHECK(outcome->rc == -1);
	CHECK_TEXT(outcome->error.text, "Slurm does not let the command be started by /dev/launch");
}

static void interrupted(void)
{
	join(&(struct scenario){ .answer = ready,
				 .plan = plan_in("work"),
				 .descriptors = true,
				 .uid = NOBODY,
				 .interrupted = true });
	CHECK(outcome->rc == 0 && outcome->inside);
}

static void expect_failure(const char *text, const char *hint, bool shared)
{
	CHECK(outcome->rc == -1);
	CHECK_TEXT(outcome->error.text, text);
	CHECK_TEXT(outcome->error.hint, hint);
	CHECK(outcome->error.shared == shared);
}

#define ENDED "the helper ended without an answer"
#define ENDED_HINT "it was killed, perhaps for lack of memory; the node's kernel log tells"

static void no_answer(void)
{
	join(&(struct scenario){ .uid = NOBODY });
	expect_failure(ENDED, ENDED_HINT, true);
	join(&(struct scenario){ .uid = NOBODY, .crash = "panic: nil map\n" });
	expect_failure(ENDED, ENDED_HINT, true);
	join(&(struct scenario){ .uid = NOBODY, .crash = "fatal error: runtime: out of memory\n" });
	CHECK_TEXT(outcome->error.text, "the helper has run out of memory: its limit is 256 MiB");
	CHECK(outcome->rc == -1 && outcome->error.shared && *outcome->error.hint);
	join(&(struct scenario){ .uid = NOBODY, .crash = "runtime: cannot allocate memory\n" });
	CHECK_TEXT(outcome->error.text, "the helper has run out of memory: its limit is 256 MiB");
	CHECK(!outcome->inside);
}

static void helper_gone(void)
{
	join(&(struct scenario){ .uid = NOBODY, .gone = true });
	expect_failure(ENDED, ENDED_HINT, true);
}

/* As where the helper cannot be started: the answer must not be lost. */
static void answered_unasked(void)
{
	join(&(struct scenario){ .answer = BYTES("error=make a user namespace: no\0"),
				 .uid = NOBODY,
				 .deaf = true });
	expect_failure("make a user namespace: no", "", true);
	join(&(struct scenario){ .uid = NOBODY, .deaf = true });
	expect_failure(ENDED, ENDED_HINT, true);
}

static void refused(void)
{
	join(&(struct scenario){ .answer = BYTES("error=get image x: not found\0hint=look\0"),
				 .uid = NOBODY });
	expect_failure("get image x: not found", "look", true);
	join(&(struct scenario){ .answer = BYTES("error=100%s\0"), .uid = NOBODY });
	expect_failure("100%s", "", true);
}

/* An error counts even if descriptors come with it. */
static void refused_with_descriptors(void)
{
	join(&(struct scenario){ .answer = BYTES("ready=1\0error=no\0"),
				 .plan = plan_in("work"),
				 .descriptors = true,
				 .uid = NOBODY });
	expect_failure("no", "", true);
	CHECK(!outcome->inside && !outcome->path_set);
}

static void longest_refusal(void)
{
	static char text[ANSWER_MAX];

	memset(text, 'x', sizeof(text) - 1);
	memcpy(text, "error=", strlen("error="));
	join(&(struct scenario){ .answer = { text, sizeof(text) }, .uid = NOBODY });
	expect_failure(text + strlen("error="), "", true);
}

/* What does not fit is cut off, and so is no record: never a half answer. */
static void too_long_refusal(void)
{
	static char text[2 * ANSWER_MAX];

	memset(text, 'x', sizeof(text) - 1);
	memcpy(text, "error=", strlen("error="));
	join(&(struct scenario){ .answer = { text, sizeof(text) }, .uid = NOBODY });
	expect_failure("internal error: the helper answered without a container", "", false);
}

static void no_descriptors(void)
{
	static const char want[] = "internal error: the helper answered without a container";

	join(&(struct scenario){ .answer = ready, .uid = NOBODY });
	expect_failure(want, "", false);
	join(&(struct scenario){ .answer = ready,
				 .plan = plan_in("work"),
				 .descriptors = true,
				 .only_one = true,
				 .uid = NOBODY });
	expect_failure(want, "", false);
	CHECK(!outcome->inside);
}

static void no_namespace(void)
{
	join(&(struct scenario){ .answer = ready,
				 .plan = plan_in("work"),
				 .descriptors = true,
				 .swapped = true,
				 .uid = NOBODY });
	expect_failure("join the container's mount namespace: Invalid argument", "", false);
}

static void other_namespaces(void)
{
	struct scenario s = { .answer = BYTES("ready=1\0namespace=uts\0"),
			      .plan = plan_in("work"),
			      .descriptors = true,
			      .other = "/proc/self/ns/uts",
			      .uid = NOBODY };

	join(&s);
	CHECK_TEXT(outcome->error.text, "");
	CHECK(outcome->rc == 0 && outcome->inside);
	expect_no_privilege();
	s.answer = BYTES("ready=1\0namespace=ipc\0"); /* it is another */
	join(&s);
	expect_failure("join a namespace of the container: Invalid argument", "", false);
	s.other = NULL; /* it does not come */
	join(&s);
	expect_failure("internal error: the helper answered without a container", "", false);
	s.answer = ready; /* one that was not announced */
	s.other = "/proc/self/ns/uts";
	join(&s);
	expect_failure("internal error: the helper answered without a container", "", false);
}

/* In a child: a user namespace where the task's user is root. Returns its pid. */
static pid_t make_user_namespace(void)
{
	char path[64], map[32];
	int pair[2];
	pid_t pid;

	if (pipe2(pair, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		give_up("fork");
	if (pid == 0) {
		if (unshare(CLONE_NEWUSER) < 0 || write(pair[1], "x", 1) != 1)
			give_up("make a user namespace");
		for (;;)
			pause();
	}
	close(pair[1]);
	if (read(pair[0], path, 1) != 1)
		give_up("no user namespace");
	close(pair[0]);
	snprintf(map, sizeof(map), "0 %d 1", NOBODY);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	pair[0] = open(path, O_WRONLY | O_CLOEXEC);
	if (pair[0] < 0 || write(pair[0], map, strlen(map)) < 0)
		give_up("write %s", path);
	close(pair[0]);
	return pid;
}

/* Root of the namespace has what remap.c lists and can never get more. */
static void root_of_a_namespace(void)
{
	char path[64];
	pid_t pid = make_user_namespace();
	struct scenario s = { .answer = BYTES("ready=1\0namespace=user\0"),
			      .plan = plan_in("work"),
			      .descriptors = true,
			      .other = path,
			      .uid = NOBODY };

	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	join(&s);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	CHECK_TEXT(outcome->error.text, "");
	CHECK_TEXT(outcome->capabilities, "CapInh:\t0000000000000000\nCapPrm:\t00000000800404fb\n"
					  "CapEff:\t00000000800404fb\nCapBnd:\t00000000800404fb\n"
					  "CapAmb:\t0000000000000000\n");
	CHECK_TEXT(outcome->no_new_privs, "NoNewPrivs:\t1\n");
	CHECK(outcome->rc == 0 && outcome->inside && outcome->pretends);
}

static void bad_plans(void)
{
	static const char malformed[] = "internal error: the helper's plan is malformed";
	static const char filter[] =
		"internal error: the helper's filter of system calls is malformed";
	static const struct {
		struct bytes plan;
		const char *want;
	} plans[] = {
		{ { "", 0 }, "internal error: the helper's plan is empty" },
		{ { "workdir=/", 9 }, malformed },
		{ { "workdir=/\0set", 13 }, malformed },
		{ { "workdir=/\0novalue", 18 }, malformed },
		{ { "workdir=/\0=x", 13 }, malformed },
		{ { "workdir=/\0", 11 }, malformed },
		{ { "seccomp=", 9 }, filter },
		{ { "seccomp=0:", 11 }, filter },
		{ { "seccomp=00000000", 17 }, filter },
		{ { "seccomp=0:06000000", 19 }, filter },
		{ { "seccomp=0:060000000000ff7", 26 }, filter },
		{ { "seccomp=0:060000000000ff7g", 27 }, filter },
		{ { "seccomp=0:0600000000000000x", 28 }, filter },
		{ { "seccomp=0:ffff000000000000", 27 },
		  "install the site's seccomp profile: Invalid argument" },
	};

	for (size_t i = 0; i < COUNT(plans); i++) {
		join(&(struct scenario){ .answer = ready,
					 .plan = plans[i].plan,
					 .descriptors = true,
					 .uid = NOBODY });
		expect_failure(plans[i].want, "", false);
		expect_no_privilege();
	}
}

/* The kernel maps whole pages: nothing after the end is read. */
static void plan_of_one_page(void)
{
	static char page[4096];

	memset(page, 'x', sizeof(page));
	memcpy(page, "set=PATH=", strlen("set=PATH="));
	join(&(struct scenario){ .answer = ready,
				 .plan = { page, sizeof(page) },
				 .descriptors = true,
				 .uid = NOBODY });
	expect_failure("internal error: the helper's plan is malformed", "", false);
	page[sizeof(page) - 1] = '\0';
	join(&(struct scenario){ .answer = ready,
				 .plan = { page, sizeof(page) },
				 .descriptors = true,
				 .uid = NOBODY });
	CHECK(outcome->rc == 0 && outcome->path_set);
}

static void no_workdir(void)
{
	char want[256];

	join(&(struct scenario){
		.answer = ready, .plan = plan_in("missing"), .descriptors = true, .uid = NOBODY });
	snprintf(want, sizeof(want),
		 "enter working directory %s/missing: No such file or directory", host_dir);
	expect_failure(want, "", false);
	expect_no_privilege();
}

/* Privilege is gone before the first path of the image is used. */
static void closed_workdir(void)
{
	char want[256];

	snprintf(want, sizeof(want), "enter working directory %s/closed: Permission denied",
		 host_dir);
	join(&(struct scenario){
		.answer = ready, .plan = plan_in("closed"), .descriptors = true, .uid = NOBODY });
	expect_failure(want, "", false);
}

static void not_root(void)
{
	struct task_error error = { 0 };

	become(NOBODY);
	CHECK(join_prepare(&error) == -1);
	CHECK_TEXT(error.text, "drop capability 0 from the bounding set: Operation not permitted");
}

int main(void)
{
	static const struct test tests[] = {
		{ "a user's task joins, without any privilege", user_joins },
		{ "root's task has no privilege either", root_joins },
		{ "the task that reports repeats the helper's messages", reporter_speaks },
		{ "a plan without workdir starts in /", default_workdir },
		{ "numbers in a task's list become others", numbers_become_others },
		{ "a launcher is executed in front of the command", launcher_first },
		{ "a launcher that cannot be had is an error", launcher_not_possible },
		{ "signals do not disturb the wait", interrupted },
		{ "a helper that ends without answer is told", no_answer },
		{ "a helper that is gone is told", helper_gone },
		{ "an answer of a helper that asked nothing is heard", answered_unasked },
		{ "the helper's error and hint are all tasks'", refused },
		{ "an error counts, whatever comes with it", refused_with_descriptors },
		{ "the longest error arrives", longest_refusal },
		{ "an answer that is too long is none", too_long_refusal },
		{ "an answer without descriptors is an error", no_descriptors },
		{ "a descriptor that is no namespace is an error", no_namespace },
		{ "other namespaces are joined as announced", other_namespaces },
		{ "root of a user namespace has few capabilities", root_of_a_namespace },
		{ "a malformed plan is an error", bad_plans },
		{ "a plan is not read beyond its end", plan_of_one_page },
		{ "a missing working directory is named", no_workdir },
		{ "root's right to all directories is gone", closed_workdir },
		{ "a task that is not root cannot prepare", not_root },
	};
	int rc;

	if (geteuid() != 0) {
		puts("join_test: skipped: needs root");
		return EXIT_SUCCESS;
	}
	outcome = mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (outcome == MAP_FAILED)
		give_up("map memory");
	make_container();
	rc = run_tests("join_test", tests, COUNT(tests));
	remove_container();
	return rc;
}
