/* SPDX-License-Identifier: Apache-2.0 */
/*
 * brolga-launch - executes the command of a task as the plan says (PROTOCOL.md).
 *
 * It exists for steps that ask for more than their command: the image's
 * entrypoint in front of it, a process namespace, or that the container is saved
 * after it ("save"; the launcher waits then, too). Slurm executes it inside the
 * container, as the user and without any privilege, and it executes the rest in
 * its own place. Static, because it runs on the files of any image.
 *
 * A task that has joined a process namespace is not in it; its children are
 * (setns(2)). The plan then says "fork", and the launcher waits for its child.
 * "brolga-launch reap" is process 1 there: it does nothing, and its children that
 * others have left are not even zombies. "brolga-launch hold" waits for the end of
 * its input: the helper's, while it makes a user namespace. "brolga-launch run" is
 * in run.c, "brolga-launch confine" in confine.c. With "slurm_script_launcher" it runs a
 * TaskProlog, see prolog.c of the plugin.
 */
#include "launcher.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../task/launch.h"

/* Arguments of "brolga-launch slurm_script_launcher". */
enum { SCRIPT_PATH = 2, SCRIPT_ARGUMENTS };

__attribute__((noreturn)) static void refuse_call(void)
{
	fprintf(stderr, "brolga: error: slurmstepd starts this program; users want "
			"brolga run, or srun --container-entrypoint\n");
	exit(2);
}

/* "brolga-launch reap" */
__attribute__((noreturn)) static void reap(char **argv)
{
	(void)argv;
	if (getpid() != 1)
		refuse_call();
	signal(SIGCHLD, SIG_IGN);
	for (;;)
		pause();
}

/* "brolga-launch hold" */
__attribute__((noreturn)) static void hold(char **argv)
{
	char byte;

	(void)argv;
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	exit(EXIT_SUCCESS);
}

/*
 * In the place of slurmstepd, which Slurm executes with these arguments in front of
 * a script's own (common/run_command.c): runs it with standard input and output only.
 */
__attribute__((noreturn)) static void run_script(char **argv)
{
	syscall(SYS_close_range, 3, ~0u, 0); /* Linux 5.9; what is left does no harm */
	setpgid(0, 0);
	execv(argv[SCRIPT_PATH], argv + SCRIPT_ARGUMENTS);
	_exit(127);
}

/*
 * A group of its own, so that a signal for the task's group comes once, by the
 * parent. A shell in the new namespace could not name another one either, so this
 * one gets the terminal.
 */
static void lead_group(void)
{
	if (setpgid(0, 0) == 0 && isatty(STDIN_FILENO))
		tcsetpgrp(STDIN_FILENO, getpid());
}

/*
 * Passes signals on until the child ends, all of which are blocked. Slurm takes
 * the parent for the task: proctrack/cgroup signals nobody else, and scancel
 * --batch neither. proctrack/linuxproc signals all processes of a step but those
 * that are named as slurmstepd is, and so the child alone.
 */
static int attend(pid_t child, const char *stepd)
{
	sigset_t all;
	int signal, status;
	pid_t pid;

	prctl(PR_SET_NAME, stepd);
	sigfillset(&all);
	for (;;) {
		if (sigwait(&all, &signal) != 0)
			continue;
		if (signal != SIGCHLD) {
			kill(child, signal);
			continue;
		}
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == child)
				return status;
	}
}

/* Reads the reply, records, until its end. Returns its length. */
static size_t read_reply(int fd, char *reply, size_t size)
{
	size_t length = 0;
	ssize_t n;

	while (length < size - 1 && (n = read(fd, reply + length, size - 1 - length)) != 0) {
		if (n > 0)
			length += (size_t)n;
		else if (errno != EINTR)
			break;
	}
	reply[length] = '\0';
	return length;
}

/* Sends the helper the end of a pipe to answer on, which is closed here. */
static void send_done(int socket, int reply)
{
	static const char text[] = "done=1";
	struct iovec data = { .iov_base = (char *)text, .iov_len = sizeof(text) };
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &reply, sizeof(int));
	while (sendmsg(socket, &message, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			break; /* then there is no answer either */
	close(reply);
}

/*
 * Tells the helper that the command has ended, and waits for as long as it needs
 * this task: it saves the container when the last one has ended. Returns the
 * status that the task ends with: nobody would see a failure of the helper's.
 */
static int report_end(int socket, int status)
{
	static char reply[8192];
	struct plan answer;
	const char *error, *hint;
	int ends[2];

	prctl(PR_SET_NAME, "brolga-save"); /* to be killed, as the command was */
	if (pipe(ends) < 0)
		give_up("make", "a pipe");
	send_done(socket, ends[1]);
	answer = (struct plan){ reply, reply + read_reply(ends[0], reply, sizeof(reply)) };
	error = plan_find(answer, "error");
	hint = plan_find(answer, "hint");
	if (answer.at == answer.end)
		error = "the container was not saved: the helper has ended";
	if (!error)
		return status;
	complain(error, hint);
	return status ? status : W_EXITCODE(EXIT_FAILURE, 0);
}

/*
 * Returns in a child. The parent stays: outside of a process namespace, if there
 * is one, and with the socket that keeps the helper alive. stepd is what
 * slurmstepd is named; with saves the helper is told of the end.
 */
static void run_in_child(int socket, const char *stepd, bool saves)
{
	int status;
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid < 0)
		give_up("start", "the command");
	if (pid == 0) {
		close(socket);
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* the one that cannot be passed on */
		lead_group(); /* while SIGTTOU is blocked */
		sigprocmask(SIG_SETMASK, &before, NULL);
		return;
	}
	status = attend(pid, stepd);
	end_as(saves ? report_end(socket, status) : status);
}

/*
 * What the launcher is when nobody has left a plan for it. With a plan its arguments are
 * those of the user's command, whatever they are.
 */
static const struct role {
	const char *name;
	int least, most; /* arguments, both names included */
	void (*run)(char **argv); /* does not return */
} roles[] = {
	{ "reap", 2, 2, reap },
	{ "hold", 2, 2, hold },
	{ "keep", 2, 2, keeper_run },
	{ "run", RUN_COMMAND, INT_MAX, run_container },
	{ "confine", CONFINE_NAME + 1, INT_MAX, confine },
};

static void play_role(int argc, char **argv)
{
	for (size_t i = 0; i < COUNT(roles); i++)
		if (argc >= roles[i].least && argc <= roles[i].most &&
		    strcmp(argv[1], roles[i].name) == 0)
			roles[i].run(argv);
	refuse_call();
}

/* Executes the command of a task; left is the value of the variable. */
static void execute_plan(const char *left, int argc, char **argv)
{
	char *command = NULL, *stepd;
	struct plan plan;
	bool saves;
	char **all;
	int socket;

	plan = open_plan((int)strtol(left, &command, 10));
	socket = (int)strtol(command + (*command == ','), &command, 10);
	stepd = strdup(*command == ',' ? command + 1 : "");
	if (!stepd)
		give_up("lay out", "the command");
	command = strchrnul(stepd, ':');
	if (*command)
		*command++ = '\0';
	unsetenv(LAUNCH_VARIABLE);
	all = make_arguments(plan, command, argc, argv);
	if (!all[0])
		give_up("find", "the command");
	saves = plan_find(plan, "save");
	if (saves || plan_find(plan, "fork"))
		run_in_child(socket, stepd, saves);
	execvp(all[0], all);
	give_up("execute", all[0]);
}

int main(int argc, char **argv)
{
	const char *left = getenv(LAUNCH_VARIABLE);

	/* Slurm has the user's variables here, so there may be any. */
	if (argc > SCRIPT_ARGUMENTS && strcmp(argv[1], "slurm_script_launcher") == 0)
		run_script(argv);
	if (left)
		execute_plan(left, argc, argv);
	play_role(argc, argv);
}
