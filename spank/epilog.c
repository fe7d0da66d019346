/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epilog.c - has the helper remove what a job that has ended keeps on the node.
 *
 * Runs in a process that slurmd starts for the plugins' epilogs of one job and
 * that has no other thread.
 */
#include "shim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef BROLGA_RUNDIR
#error "define BROLGA_RUNDIR, the directory of what helpers note on the node"
#endif

#define VARIABLES_MAX 4096

/*
 * Tells whether a helper has noted that the node has no named container, by that
 * configuration (pkg/named). Most jobs end so, and start no program. What cannot be
 * read, or anybody else could have written, is no note.
 */
static bool has_none(const char *config, const char *node)
{
	autoclose int dir = open(BROLGA_RUNDIR "/unnamed",
				 O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	autoclose int note = -1;
	char text[PATH_MAX];
	struct stat status;

	if (dir < 0 || fstat(dir, &status) < 0 || status.st_uid != geteuid() ||
	    status.st_mode & (S_IWGRP | S_IWOTH))
		return false;
	note = openat(dir, node, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return note >= 0 && read(note, text, sizeof(text)) == (ssize_t)strlen(config) &&
	       memcmp(text, config, strlen(config)) == 0;
}

/*
 * Tells whether a helper has noted what is to be run at the end of a step: that of one
 * which goes on, or of one whose slurmstepd was killed (pkg/hook/external).
 */
static bool has_left(void)
{
	DIR *notes = opendir(BROLGA_RUNDIR "/poststop");
	const struct dirent *note = NULL;

	if (!notes)
		return false;
	do
		note = readdir(notes);
	while (note && note->d_name[0] == '.');
	closedir(notes);
	return note;
}

/* Between fork and execve: system calls only. */
__attribute__((noreturn)) static void execute(char *const arguments[], char *const environment[],
					      int said)
{
	int null = open("/dev/null", O_RDWR);

	dup2(said, STDERR_FILENO);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
	}
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0);
	execve(arguments[0], arguments, environment);
	_exit(127);
}

/*
 * Waits for the helper, if there is something to do. Returns 0, or -1 if it did not
 * do its work. Its lines are repeated in slurmd's log.
 */
int epilog_run(const char *config, const char *node, uint32_t job)
{
	static char number[24], slurm_conf[VARIABLES_MAX];
	const char *conf = getenv("SLURM_CONF"); /* slurmd's; the helper may ask Slurm */
	char *arguments[] = { BROLGA_HELPER, "end",  (char *)(config ? config : ""),
			      (char *)node,  number, NULL };
	char *environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", slurm_conf,
				NULL };
	int status = 0, said[2];
	pid_t pid;

	if (has_none(config ? config : "", node) && !has_left())
		return 0;
	snprintf(number, sizeof(number), "%u", job);
	if (conf)
		snprintf(slurm_conf, sizeof(slurm_conf), "SLURM_CONF=%s", conf);
	else
		environment[2] = NULL;
	/* slurmd keeps no standard error of this process. */
	if (pipe2(said, O_CLOEXEC) < 0)
		return -1;
	pid = fork();
	if (pid == 0)
		execute(arguments, environment, said[1]);
	close(said[1]);
	if (pid < 0) {
		close(said[0]);
		return -1;
	}
	helper_repeat(said[0]);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}
