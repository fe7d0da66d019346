/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - a container without Slurm: what slurmstepd and its tasks are otherwise.
 *
 * brolga executes "brolga-launch run" in its own place once it has the image, and
 * the command takes this one's: it has the terminal, the signals, the exit status
 * and the parent that brolga had, because it is the same process.
 *
 * The helper is started beside it, as nobody's child. Without root it is root of a
 * user namespace in which the user is 0, the only one there is (user_namespaces(7)).
 * All mounts belong to that namespace. The command is in one below, in which the
 * user is who they are, so it can undo nothing; with --container-remap-root it stays
 * and gives up all capabilities that could.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* As docker and podman have them: Brolga failed; the command cannot be executed;
 * there is no such command. */
enum { STATUS_BROLGA = 125, STATUS_DENIED = 126, STATUS_MISSING = 127 };

struct run {
	const char *helper;
	int message, image;
	bool as_user, root;
	uid_t uid;
	gid_t gid;
};

__attribute__((noreturn)) static void fail_run(const struct task_error *error)
{
	complain(error->text, error->hint);
	exit(STATUS_BROLGA);
}

static int hint(struct task_error *error, const char *text)
{
	snprintf(error->hint, sizeof(error->hint), "%s", text);
	return -1;
}

/* Returns the number in a file of /proc/sys, or -1. */
static long setting(const char *path)
{
	FILE *file = fopen(path, "re");
	long value = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%ld", &value) != 1)
		value = -1;
	fclose(file);
	return value;
}

/* Says which of the system's settings forbids the user namespace. */
static int explain_refusal(struct task_error *error)
{
	fail_errno(error, "make a user namespace");
	if (setting("/proc/sys/kernel/unprivileged_userns_clone") == 0)
		return hint(
			error,
			"an administrator allows them: sysctl kernel.unprivileged_userns_clone=1");
	if (setting("/proc/sys/user/max_user_namespaces") == 0)
		return hint(error,
			    "an administrator allows some: sysctl user.max_user_namespaces=10000");
	if (setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1)
		return hint(error,
			    "an administrator gives brolga-launch an AppArmor profile that has "
			    "\"userns,\", or sets kernel.apparmor_restrict_unprivileged_userns=0");
	return hint(error, "this system keeps users from making user namespaces, or all are taken; "
			   "its administrator knows");
}

static int write_file(int dir, const char *name, const char *text)
{
	autoclose int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

/*
 * Makes a user namespace with one user and one group, whose numbers inside are
 * given; outside they are those of this process. self is /proc/self of this process.
 */
static int make_user_namespace(int self, uid_t uid, gid_t gid, struct task_error *error)
{
	uid_t uid_before = geteuid();
	gid_t gid_before = getegid();
	char map[64];

	if (unshare(CLONE_NEWUSER) < 0)
		return explain_refusal(error);
	/* Who can give a group up could read what the group is kept out of. */
	if (write_file(self, "setgroups", "deny") < 0)
		return explain_refusal(error);
	snprintf(map, sizeof(map), "%u %u 1", uid, uid_before);
	if (write_file(self, "uid_map", map) < 0)
		return explain_refusal(error);
	snprintf(map, sizeof(map), "%u %u 1", gid, gid_before);
	if (write_file(self, "gid_map", map) < 0)
		return explain_refusal(error);
	return 0;
}

/* Answers for the helper, which cannot be started. */
__attribute__((noreturn)) static void refuse(int socket, const struct task_error *error)
{
	struct message answer = { 0 };

	message_add(&answer, "error", error->text);
	if (*error->hint)
		message_add(&answer, "hint", error->hint);
	if (send(socket, answer.data, answer.length, MSG_NOSIGNAL) < 0)
		_exit(STATUS_BROLGA); /* and nobody is there who could be told */
	_exit(EXIT_SUCCESS);
}

/* Gives the helper its descriptors, and none of the user's but standard error. */
static int lay_out_descriptors(const struct run *run, int socket)
{
	int from[] = { run->message, open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO, socket,
		       run->image };

	for (size_t i = 0; i < COUNT(from); i++)
		if ((from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 16)) < 0)
			return -1;
	for (int i = 0; i < (int)COUNT(from); i++)
		if (dup2(from[i], i) < 0)
			return -1;
	if (syscall(SYS_close_range, COUNT(from), UINT_MAX, 0) < 0)
		for (int fd = COUNT(from); fd < (int)sysconf(_SC_OPEN_MAX); fd++)
			close(fd);
	return 0;
}

/* Becomes the helper, with the socket as its descriptor 3 and the image as 4. */
__attribute__((noreturn)) static void become_helper(const struct run *run, int socket)
{
	static struct task_error error;
	char *arguments[] = { (char *)"brolga-helper", (char *)"run", NULL };
	char *environment[] = { NULL };
	int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (run->as_user && make_user_namespace(self, 0, 0, &error) < 0)
		refuse(socket, &error);
	/* Where AppArmor keeps its hand on it, the namespace is made and worth nothing. */
	if (run->as_user && unshare(CLONE_NEWUTS) < 0) {
		explain_refusal(&error);
		refuse(socket, &error);
	}
	if (lay_out_descriptors(run, socket) == 0)
		execve(run->helper, arguments, environment);
	fail_errno(&error, "start %s", run->helper);
	refuse(3, &error);
}

/* The command must not find a child that it did not start. */
static int start_helper(const struct run *run)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		give_up("connect to", run->helper);
	pid = fork();
	if (pid < 0)
		give_up("start", run->helper);
	if (pid == 0) {
		setsid(); /* the terminal's signals are for the command */
		if (fork() == 0)
			become_helper(run, ends[1]);
		_exit(EXIT_SUCCESS);
	}
	while (waitpid(pid, NULL, 0) < 0)
		;
	close(ends[1]);
	return ends[0];
}

/* Joins what the answer has of one type, or of all others than users and mounts. */
static int join(const struct answer *answer, bool users, struct task_error *error)
{
	for (int i = 0; i < answer->others; i++) {
		if ((answer->types[i] == CLONE_NEWUSER) != users)
			continue;
		if (setns(answer->fds[ANSWER_OTHERS + i], answer->types[i]) < 0)
			return fail_errno(error, "join a namespace of the container");
	}
	return 0;
}

static int drop_capabilities(struct task_error *error)
{
	if (capabilities_bound(0, error) < 0)
		return -1;
	if (capabilities_set(0) < 0)
		return fail_errno(error, "drop capabilities");
	return 0;
}

/* Identity: the user, or root; afterwards without any capability, as in a step. */
static int enter(const struct run *run, const struct answer *answer, struct task_error *error)
{
	autoclose int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

	/* Users first: the rest needs the capabilities that this gives. */
	if (join(answer, true, error) < 0)
		return -1;
	if (setns(answer->fds[ANSWER_MOUNT], CLONE_NEWNS) < 0)
		return fail_errno(error, "join the container's mount namespace");
	if (join(answer, false, error) < 0)
		return -1;
	if (run->root) {
		if (remap_limit(error) < 0)
			return -1;
	} else {
		if (run->as_user && make_user_namespace(self, run->uid, run->gid, error) < 0)
			return -1;
		if (drop_capabilities(error) < 0)
			return -1;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail_errno(error, "set no_new_privs");
	if (run->root && remap_pretend() < 0)
		return fail_errno(error, "install the system call filter");
	return 0;
}

static void change_environment(struct plan plan, const char *key)
{
	const char *value;

	while ((value = plan_next(&plan, key))) {
		char *entry = strdup(value), *equals;

		if (!entry)
			give_up("set", "the environment");
		equals = strchr(entry, '=');
		if (equals) {
			*equals = '\0';
			setenv(entry, equals + 1, 1);
		} else {
			unsetenv(entry);
		}
		free(entry);
	}
}

static void tell(struct plan plan, const char *key, const char *prefix)
{
	const char *text;

	while ((text = plan_next(&plan, key)))
		fprintf(stderr, "brolga: %s%s\n", prefix, text);
}

/* Changes what the plan says; the directory is one of the container. */
static int follow(struct plan plan, struct task_error *error)
{
	struct plan again = plan;
	const char *workdir = plan_next(&again, "workdir");

	tell(plan, "warning", "warning: ");
	tell(plan, "notice", "");
	change_environment(plan, "set");
	change_environment(plan, "unset");
	if (chdir(workdir ? workdir : "/") < 0)
		return fail_errno(error, "enter working directory %s", workdir ? workdir : "/");
	return 0;
}

__attribute__((noreturn)) static void execute(char **command)
{
	int missing;

	execvp(command[0], command);
	missing = errno == ENOENT;
	fprintf(stderr, "brolga: error: execute %s in the container: %s\n", command[0],
		strerror(errno));
	exit(missing ? STATUS_MISSING : STATUS_DENIED);
}

/*
 * Stops with the child that was stopped, so that the shell takes the terminal, and
 * goes on with it.
 */
static void stop_with(pid_t child, bool terminal)
{
	kill(getpid(), SIGSTOP);
	if (terminal && tcgetpgrp(STDIN_FILENO) == getpgrp())
		tcsetpgrp(STDIN_FILENO, child);
	kill(-child, SIGCONT);
	kill(child, SIGCONT);
}

/*
 * Waits for the child, which is in the process namespace, passes signals on to it,
 * and ends as it ended. What the terminal sends to all its processes the child has
 * got already. All signals are blocked.
 */
__attribute__((noreturn)) static void stand_for(pid_t child)
{
	bool terminal = isatty(STDIN_FILENO);
	sigset_t all;
	siginfo_t info;
	int status, number;

	sigfillset(&all);
	for (;;) {
		number = sigwaitinfo(&all, &info);
		if (number == SIGCHLD) {
			pid_t pid = waitpid(child, &status, WNOHANG | WUNTRACED);

			if (pid == child && WIFSTOPPED(status))
				stop_with(child, terminal);
			else if (pid == child)
				break;
		} else if (number > 0 && info.si_code != SI_KERNEL) {
			kill(child, number);
		}
	}
	if (terminal)
		tcsetpgrp(STDIN_FILENO, getpgrp());
	end_as(status);
}

/*
 * A shell in the new namespace cannot name the group that has the terminal. Without
 * a terminal for input the child stays in the group that the caller chose.
 */
static void take_terminal(void)
{
	if (isatty(STDIN_FILENO) && setpgid(0, 0) == 0)
		tcsetpgrp(STDIN_FILENO, getpid());
}

/*
 * Returns in a child in the process namespace. The parent holds the socket, and
 * with it the helper, whose end is that of the namespace.
 */
static void enter_processes(int socket)
{
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid < 0)
		give_up("start", "the command");
	if (pid > 0)
		stand_for(pid);
	close(socket);
	take_terminal(); /* while SIGTTOU is blocked */
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static struct run read_arguments(char **argv)
{
	return (struct run){
		.helper = argv[RUN_HELPER],
		.message = (int)strtol(argv[RUN_MESSAGE], NULL, 10),
		.image = (int)strtol(argv[RUN_IMAGE], NULL, 10),
		.as_user = strchr(argv[RUN_KIND], RUN_AS_USER),
		.root = strchr(argv[RUN_KIND], RUN_ROOT),
		.uid = geteuid(),
		.gid = getegid(),
	};
}

/* Identity: the user who called brolga, or root. */
void run_container(char **argv)
{
	static struct task_error error;
	static struct answer answer;
	static const char hello[] = "hello=1";
	struct run run = read_arguments(argv);
	int argc = 0, socket = start_helper(&run);
	struct plan plan;
	const char *filter;
	int attributes = label_open();
	char **command;

	close(run.message);
	close(run.image);
	if (answer_ask(socket, hello, sizeof(hello), &error) < 0 ||
	    answer_receive(socket, -1, &answer, &error) < 0 || answer_check(&answer, &error) < 0)
		fail_run(&error);
	plan = open_plan(answer.fds[ANSWER_PLAN]);
	while (argv[RUN_COMMAND + argc])
		argc++;
	command = make_arguments(plan, (char *)"", argc + 1, argv + RUN_COMMAND - 1);
	if (!command[0])
		give_up("find", "the command");
	if (!plan_find(plan, "fork"))
		keeper_start(answer.fds[ANSWER_MOUNT]);
	if (enter(&run, &answer, &error) < 0 || follow(plan, &error) < 0)
		fail_run(&error);
	if (label_set(attributes, plan_find(plan, "apparmor"), plan_find(plan, "selinux"), &error) <
	    0)
		fail_run(&error);
	filter = plan_find(plan, "seccomp");
	if (plan_find(plan, "fork"))
		enter_processes(socket);
	if (filter && filter_install(filter, &error) < 0)
		fail_run(&error);
	execute(command);
}
