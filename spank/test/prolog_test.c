/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prolog_test.c - the site's TaskProlog and what its lines do, and who runs the user's.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <slurm/slurm.h>

#include "check.h"
#include "fake_spank.h"

/* slurmstepd's. */
slurm_conf_t slurm_conf;

static char script[64];
static struct task_error error;

/* Runs a script of these lines as TaskProlog. */
static int run_script(const char *lines)
{
	static char *environment[] = { "PATH=/usr/bin:/bin", "GIVEN=by Slurm", NULL };
	int fd, rc;

	strcpy(script, "/tmp/prolog_test.XXXXXX");
	fd = mkstemp(script);
	if (fd < 0 || dprintf(fd, "#!/bin/sh\n%s\n", lines) < 0 || fchmod(fd, 0755) < 0)
		give_up("write a script");
	close(fd);
	fake.env = environment;
	slurm_conf.task_prolog = script;
	rc = prolog_run(NULL, &error);
	unlink(script);
	return rc;
}

static void lines(void)
{
	spank_setenv(NULL, "OLD", "x", 1);
	CHECK(run_script("echo 'export  A = b=c '\n"
			 "echo \"export FROM=$GIVEN\"\n"
			 "echo 'unset OLD '\n"
			 "echo exported B=1\n"
			 "echo 'export NOTHING'\n"
			 "echo unset\n"
			 "printf 'export LAST=1'") == 0);
	CHECK_TEXT(fake_variable("A"), " b=c ");
	CHECK_TEXT(fake_variable("FROM"), "by Slurm");
	CHECK_TEXT(fake_variable("LAST"), "1");
	CHECK(!fake_variable("OLD") && !fake_variable("B") && !fake_variable("NOTHING"));
	CHECK_TEXT(fake_variable("SLURM_SCRIPT_CONTEXT"), "prolog_task");
	CHECK(!slurm_conf.task_prolog); /* Slurm does not run it again */
}

static void prints(void)
{
	char text[64] = "";
	int pair[2], before = dup(STDOUT_FILENO);

	if (pipe(pair) < 0)
		give_up("make a pipe");
	dup2(pair[1], STDOUT_FILENO);
	CHECK(run_script("echo 'print  two words'; echo 'not printed'") == 0);
	dup2(before, STDOUT_FILENO);
	CHECK(read(pair[0], text, sizeof(text) - 1) == 10);
	CHECK_TEXT(text, "two words\n");
}

/* More than is kept, so that the script could block. */
static void much(void)
{
	CHECK(run_script(
		      "echo export A=1; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo export B=1") ==
	      0);
	CHECK_TEXT(fake_variable("A"), "1");
	CHECK(!fake_variable("B"));
}

static void failures(void)
{
	CHECK(run_script("exit 7") == 7);
	CHECK(strstr(error.text, script) && strstr(error.text, ": exit status 7"));
	CHECK(slurm_conf.task_prolog == script);
	CHECK(run_script("kill -TERM $$") == EXIT_FAILURE);
	CHECK(strstr(error.text, ": ended by signal 15") != NULL);
	slurm_conf.task_prolog = "/no/such/prolog";
	CHECK(prolog_run(NULL, &error) == EXIT_FAILURE);
	CHECK_TEXT(error.text, "run TaskProlog /no/such/prolog: No such file or directory");
}

static void none(void)
{
	slurm_conf.task_prolog = NULL;
	CHECK(prolog_run(NULL, &error) == 0);
	slurm_conf.task_prolog = "";
	CHECK(prolog_run(NULL, &error) == 0);
	CHECK(!fake_variable("SLURM_SCRIPT_CONTEXT"));
}

static bool is_file(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

static void script_launcher(void)
{
	int own = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	int read = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int other = open("/", O_PATH | O_CLOEXEC);

	prolog_prepare();
	CHECK(is_file(own, BROLGA_LAUNCHER) && fcntl(own, F_GETFD) == FD_CLOEXEC);
	CHECK(is_file(read, "/proc/self/exe") && is_file(other, "/"));
	close(own);
	close(read);
	close(other);
}

int main(void)
{
	static const struct test tests[] = {
		{ "its lines change the environment, and it is not run again", lines },
		{ "lines with print are the task's output", prints },
		{ "what it writes has no limit, what counts has", much },
		{ "a script that fails or is missing ends the task", failures },
		{ "without one nothing happens", none },
		{ "Slurm runs the user's by the launcher, not by itself", script_launcher },
	};

	return run_tests("prolog_test", tests, COUNT(tests));
}
