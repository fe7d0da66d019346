/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prolog.c - runs the site's TaskProlog on the host.
 *
 * Slurm runs it after slurm_spank_task_init, when the task is in its container,
 * where neither the script nor what it calls need to be. So it is run here, before
 * that, as Slurm does it (slurmstepd/task.c): by the task, as the user, with the
 * task's environment. What it exports counts as the step's. The user's is run by Slurm,
 * in the container.
 *
 * Runs where join.c does. Slurm's own code forks and allocates in this place, too.
 */
#include "shim.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <slurm/slurm.h>

/*
 * slurmstepd's copy of slurm.conf. A plugin is only loaded by the release that it
 * is compiled for, so the layout is right.
 */
extern slurm_conf_t slurm_conf __attribute__((weak));

static const char *prolog_path(void)
{
	return &slurm_conf ? slurm_conf.task_prolog : NULL;
}

/* Only in this process: the task's. */
static void forget_prolog(void)
{
	slurm_conf.task_prolog = NULL;
}

__attribute__((noreturn)) static void execute(const char *path, int output, char **environment)
{
	char *arguments[] = { (char *)path, NULL };
	int input = open("/dev/null", O_RDWR);

	if (input < 0 || dup2(input, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
	    dup2(output, STDERR_FILENO) < 0)
		_exit(127);
	syscall(SYS_close_range, 3, ~0u, 0); /* Linux 5.9; what is left does no harm */
	setpgid(0, 0);
	execve(path, arguments, environment);
	_exit(127);
}

/* Reads all, and keeps what has room. */
static void read_output(int fd, char *output, size_t size)
{
	char rest[4096] = { 0 };
	size_t used = 0;
	ssize_t n;

	for (;;) {
		bool full = used == size - 1;

		n = read(fd, full ? rest : output + used, full ? sizeof(rest) : size - 1 - used);
		if (n > 0 && !full)
			used += (size_t)n;
		if (n == 0 || (n < 0 && errno != EINTR))
			break;
	}
	output[used] = '\0';
}

/* Returns the text after a word and blanks, or NULL if the line begins otherwise. */
static char *after(char *line, const char *word)
{
	if (strncmp(line, word, strlen(word)) != 0)
		return NULL;
	for (line += strlen(word); isspace((unsigned char)*line);)
		line++;
	return line;
}

static void trim(char *text)
{
	for (size_t n = strlen(text); n && isspace((unsigned char)text[n - 1]);)
		text[--n] = '\0';
}

/* srun(1), --task-prolog, says what the lines mean; others mean nothing. */
static void obey(spank_t sp, char *line)
{
	char *rest, *value;

	if ((rest = after(line, "print "))) {
		dprintf(STDOUT_FILENO, "%s\n", rest);
	} else if ((rest = after(line, "export ")) && (value = strchr(rest, '='))) {
		*value++ = '\0';
		trim(rest);
		spank_setenv(sp, rest, value, 1);
	} else if ((rest = after(line, "unset "))) {
		trim(rest);
		if (*rest)
			spank_unsetenv(sp, rest);
	}
}

static int run(const char *path, char **environment, char *output, size_t size)
{
	int status, pair[2];
	pid_t pid;

	if (access(path, R_OK | X_OK) < 0 || pipe2(pair, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0)
		execute(path, pair[1], environment);
	close(pair[1]);
	if (pid > 0)
		read_output(pair[0], output, size);
	close(pair[0]);
	if (pid < 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

/*
 * Returns 0, or what the task shall exit with, as Slurm would have it exit, and the
 * reason in error.
 */
int prolog_run(spank_t sp, struct task_error *error)
{
	static char output[64 << 10];
	const char *path = prolog_path();
	char **environment = NULL, *next = output, *line;
	int status;

	if (!path || !*path)
		return 0;
	spank_setenv(sp, "SLURM_SCRIPT_CONTEXT", "prolog_task", 1);
	if (spank_get_item(sp, S_JOB_ENV, &environment) != ESPANK_SUCCESS)
		environment = NULL;
	status = run(path, environment, output, sizeof(output));
	if (status == -1) {
		snprintf(error->text, sizeof(error->text), "run TaskProlog %s: %m", path);
		return EXIT_FAILURE;
	}
	if (WIFSIGNALED(status)) {
		snprintf(error->text, sizeof(error->text), "TaskProlog %s: ended by signal %d",
			 path, WTERMSIG(status));
		return EXIT_FAILURE;
	}
	while ((line = strsep(&next, "\n")))
		obey(sp, line);
	if (WEXITSTATUS(status))
		snprintf(error->text, sizeof(error->text), "TaskProlog %s: exit status %d", path,
			 WEXITSTATUS(status));
	else
		forget_prolog();
	return WEXITSTATUS(status);
}

/*
 * Since 24.05 slurmstepd runs scripts by way of itself, from a descriptor that it
 * has opened for that (common/run_command.c). Among the files of an image it does
 * not find its libraries. The launcher, static, does the same and takes its place,
 * in this process: the task's. It is closed by execve(2), as the one before.
 */
void prolog_prepare(void)
{
	enum { FIRST = 3, LAST = 255 }; /* slurmstepd has begun with it */
	autoclose int launcher = open(BROLGA_LAUNCHER, O_PATH | O_CLOEXEC);
	struct stat self, file;

	if (launcher < 0 || stat("/proc/self/exe", &self) < 0)
		return;
	for (int fd = FIRST; fd <= LAST; fd++) {
		int flags = fcntl(fd, F_GETFL);

		if (flags >= 0 && (flags & O_PATH) && fstat(fd, &file) == 0 &&
		    file.st_dev == self.st_dev && file.st_ino == self.st_ino)
			dup3(launcher, fd, O_CLOEXEC);
	}
}
