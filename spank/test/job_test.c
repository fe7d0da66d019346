/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job_test.c - the facts of a step, and what happens where Slurm has none.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "fake_spank.h"

#define STEP_BATCH 0xfffffffbu
#define STEP_EXTERN 0xfffffffcu

/* What every Debian knows of user 0 with primary group 1. */
#define ROOT "account=root\ngecos=root\nhome=/root\nnamed_group=1\ngroup_name=daemon\n"

static gid_t groups[] = { 4294967293u, 27, 4294967294u };
static char *environment[] = { "HOME=/home/u", "EMPTY=", "LINES=a\nb", NULL };

static void expect_facts(int want_rc, const char *want)
{
	struct message m = { 0 };
	char *text;

	CHECK(job_add_facts(&m, NULL) == want_rc);
	text = records_text(m.data ? m.data : "", m.length);
	if (want)
		CHECK_TEXT(text, want);
	free(text);
	message_free(&m);
}

static void as_root(void)
{
	fake.uid = 0;
	fake.gid = 1;
}

static void ordinary_step(void)
{
	setenv("SLURMD_NODENAME", "n1", 1);
	fake.groups = groups;
	fake.group_count = COUNT(groups);
	fake.env = environment;
	fake.uid = 4294967294u; /* larger than an int, and nobody's */
	fake.gid = 4294967293u;
	fake.node_id = 3;
	fake.restart = 1;
	expect_facts(0, "job=5\nstep=0\nnodes=1\ntasks=2\nuid=4294967294\ngid=4294967293\n"
			"group=4294967293\ngroup=27\ngroup=4294967294\n"
			"account_error=no such user\nnamed_group=27\ngroup_name=sudo\n"
			"node_id=3\nrestart=1\nnode=n1\n"
			"env=HOME=/home/u\nenv=EMPTY=\nenv=LINES=a\\x0ab\nend\n");
}

static void bare_step(void)
{
	as_root();
	setenv("SLURMD_NODENAME", "n1", 1);
	expect_facts(0, "job=5\nstep=0\nnodes=1\ntasks=2\nuid=0\ngid=1\n" ROOT "node=n1\nend\n");
}

/* As in Slurm 20.11: the host's name, up to the first dot. */
static void nameless_node(void)
{
	char host[HOST_NAME_MAX + 1] = "", want[512];

	as_root();
	unsetenv("SLURMD_NODENAME");
	CHECK(gethostname(host, sizeof(host)) == 0 && *host);
	snprintf(want, sizeof(want), "%snode=%.*s\nend\n",
		 "job=5\nstep=0\nnodes=1\ntasks=2\nuid=0\ngid=1\n" ROOT, (int)strcspn(host, "."),
		 host);
	expect_facts(0, want);
}

static void batch_script(void)
{
	char *argv[] = { "/var/spool/slurmd/job00005/slurm_script", "an argument", NULL };

	as_root();
	setenv("SLURMD_NODENAME", "n1", 1);
	fake.step = STEP_BATCH;
	fake.argv = argv;
	fake.argc = 2;
	expect_facts(0, "job=5\nstep=4294967291\nnodes=1\ntasks=2\nuid=0\ngid=1\n" ROOT
			"script=/var/spool/slurmd/job00005/slurm_script\nnode=n1\nend\n");
}

/* The first argument of another step is the user's and no script of slurmd. */
static void no_script(void)
{
	char *argv[] = { "./app", "an argument", NULL };

	as_root();
	setenv("SLURMD_NODENAME", "n1", 1);
	fake.argv = argv;
	fake.argc = 2;
	expect_facts(0, "job=5\nstep=0\nnodes=1\ntasks=2\nuid=0\ngid=1\n" ROOT
			"command=./app\nnode=n1\nend\n");
}

static void batch_without_script(void)
{
	fake.step = STEP_BATCH;
	expect_facts(-1, NULL);
}

static void refused_items(void)
{
	static const spank_item_t items[] = {
		S_JOB_ID,  S_JOB_STEPID, S_JOB_NNODES, S_JOB_LOCAL_TASK_COUNT,
		S_JOB_UID, S_JOB_GID,	 S_JOB_ENV,    S_JOB_SUPPLEMENTARY_GIDS,
	};

	for (size_t i = 0; i < COUNT(items); i++) {
		fake.failing = 0;
		fake_refuse(items[i]);
		expect_facts(-1, NULL);
	}
	fake.failing = 0;
	fake_refuse(S_JOB_ARGV);
	fake.step = STEP_BATCH;
	expect_facts(-1, NULL);
}

static void which_steps(void)
{
	CHECK(job_is_container_step(NULL));
	fake.step = STEP_BATCH;
	CHECK(job_is_container_step(NULL));
	fake.step = STEP_EXTERN;
	CHECK(!job_is_container_step(NULL));
	fake_refuse(S_JOB_STEPID);
	CHECK(!job_is_container_step(NULL));
}

static void counts(void)
{
	fake.task = 7;
	CHECK(job_local_tasks(NULL) == 2 && job_local_task(NULL) == 7);
	fake_refuse(S_TASK_ID);
	fake_refuse(S_JOB_LOCAL_TASK_COUNT);
	CHECK(job_local_tasks(NULL) == -1 && job_local_task(NULL) == -1);
}

int main(void)
{
	static const struct test tests[] = {
		{ "all facts of a step are told", ordinary_step },
		{ "a step without groups and variables", bare_step },
		{ "a node whose name Slurm does not tell has the host's", nameless_node },
		{ "a batch step has a script", batch_script },
		{ "another step has a command instead", no_script },
		{ "a batch step without script fails", batch_without_script },
		{ "a fact that Slurm refuses is an error", refused_items },
		{ "the extern step is no container step", which_steps },
		{ "tasks are counted and numbered", counts },
	};

	return run_tests("job_test", tests, COUNT(tests));
}
