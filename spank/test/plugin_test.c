/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plugin_test.c - the callbacks, in the order in which Slurm calls them. Slurm
 * reads much into what they return: 0 and -1 are all that may come.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "fake_library.h"
#include "fake_spank.h"
#include "helper_notes.h"

static char *config_argument[] = { "config=/etc/brolga/brolga.toml" };

static struct fake_library *library(void)
{
	return dlsym(dlopen(BROLGA_LIBRARY, RTLD_NOW | RTLD_LOCAL), "fake_library");
}

static bool library_is_loaded(void)
{
	return dlopen(BROLGA_LIBRARY, RTLD_NOW | RTLD_NOLOAD) != NULL;
}

static void library_answers(int rc, const char *records, size_t length)
{
	library()->rc = rc;
	library()->reply_length = length;
	memcpy(library()->reply, records, length);
}
#define ANSWERS(rc, records) library_answers(rc, records, sizeof(records))

/* What the library was told, as text. */
static bool library_was_told(const char *line)
{
	char *text = records_text(library()->message, library()->length);
	bool found = strstr(text, line) != NULL;

	if (!found)
		fprintf(stderr, "the library was told:\n%s", text);
	free(text);
	return found;
}

static void start_in(spank_context_t context)
{
	fake.context = context;
	CHECK(slurm_spank_init(NULL, 1, config_argument) == 0);
}

/* Calls one callback in a child: returns what it returned, or 100 plus the
 * status with which it ended the process. */
static int call_in_child(int (*callback)(spank_t, int, char **))
{
	int status;
	pid_t pid;

	fake_log(); /* the child writes to it */
	pid = fork();
	if (pid < 0)
		give_up("fork");
	if (pid == 0) {
		int rc;

		alarm(20);
		rc = callback(NULL, 0, NULL);
		_exit(rc == 0 ? 50 : rc == -1 ? 51 : 52);
	}
	if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		give_up("the child did not exit");
	switch (WEXITSTATUS(status)) {
	case 50:
		return 0;
	case 51:
		return -1;
	}
	return 100 + WEXITSTATUS(status);
}

/* All callbacks after init; for a process without a container. */
static void expect_nothing_happens(void)
{
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(slurm_spank_task_init_privileged(NULL, 0, NULL) == 0);
	CHECK(slurm_spank_task_init(NULL, 0, NULL) == 0);
	CHECK(slurm_spank_task_post_fork(NULL, 0, NULL) == 0);
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
	CHECK(!library_is_loaded());
	CHECK_TEXT(fake_log(), "");
}

/* ---- init ---- */

static void other_contexts(void)
{
	static const spank_context_t contexts[] = { S_CTX_ERROR, S_CTX_SLURMD, S_CTX_JOB_SCRIPT };
	char *wrong[] = { "nonsense" };

	for (size_t i = 0; i < COUNT(contexts); i++) {
		fake.context = contexts[i];
		CHECK(slurm_spank_init(NULL, 1, wrong) == 0);
		CHECK(fake.option_count == 0);
		expect_nothing_happens();
	}
}

static void no_options(void)
{
	static const spank_context_t contexts[] = { S_CTX_LOCAL, S_CTX_ALLOCATOR, S_CTX_REMOTE };

	for (size_t i = 0; i < COUNT(contexts); i++) {
		fake.option_count = 0;
		start_in(contexts[i]);
		CHECK(fake.option_count > 0);
		expect_nothing_happens();
	}
}

static void bad_arguments(void)
{
	static char *const arguments[] = { "config=relative", "config=", "config", "x",
					   "Config=/a",	      "" };

	fake.context = S_CTX_LOCAL;
	for (size_t i = 0; i < COUNT(arguments); i++) {
		char *av[] = { arguments[i] };

		CHECK(slurm_spank_init(NULL, 1, av) == -1);
	}
	CHECK(strstr(fake_log(), "error: brolga: plugstack.conf: unknown argument "
				 "\"config=relative\": want config=/PATH\n") == fake_log());
}

/*
 * A node whose plugstack.conf has a mistake must not run the task on the host:
 * the option has to be known for the step to fail.
 */
static void bad_arguments_on_a_node(void)
{
	char *wrong[] = { "confg=/etc/brolga/brolga.toml" };

	CHECK(slurm_spank_init(NULL, 1, wrong) == 0);
	CHECK(fake_give("container-image", "ubuntu") == 0);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(!library_is_loaded());
	CHECK(call_in_child(slurm_spank_task_init_privileged) == 0);
	CHECK(call_in_child(slurm_spank_task_init) == 101);
	CHECK(strstr(fake_log(), "error: brolga: error: the plugin is misconfigured on this node, "
				 "see slurmd's log\n") != NULL);
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

static void taken_names(void)
{
	fake.refused_option = "container-mounts";
	fake.context = S_CTX_LOCAL;
	CHECK(slurm_spank_init(NULL, 1, config_argument) == -1);
	fake.context = S_CTX_REMOTE;
	CHECK(slurm_spank_init(NULL, 1, config_argument) == 0);
}

/* ---- srun, sbatch, salloc ---- */

static void submission(void)
{
	setenv("FROM_USER", "a=b", 1);
	start_in(S_CTX_LOCAL);
	ANSWERS(0, "env=BROLGA_PIN=a@b\0job=BROLGA_JOB_IMAGE=a@b\0env=OTHER=");
	CHECK(fake_give("container-image", "ubuntu") == 0);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(library()->submits == 1);
	CHECK_TEXT(fake_variable("SPANK_BROLGA_JOB_IMAGE"), "a@b");
	CHECK(library_was_told("context=submit\nabi=2\nconfig=/etc/brolga/brolga.toml\n"
			       "option=container-image\nvalue=ubuntu\nlaunches=1\nenv="));
	CHECK(library_was_told("\nenv=FROM_USER=a=b\n"));
	CHECK_TEXT(getenv("BROLGA_PIN"), "a@b");
	CHECK_TEXT(getenv("OTHER"), "");
	CHECK_TEXT(fake_log(), "");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

static void submission_by_variable(void)
{
	setenv("BROLGA_CONTAINER_IMAGE", "ubuntu", 1);
	start_in(S_CTX_ALLOCATOR);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(library()->submits == 1);
}

static void submission_without_config(void)
{
	fake.context = S_CTX_LOCAL;
	CHECK(slurm_spank_init(NULL, 0, NULL) == 0);
	ANSWERS(0, "");
	CHECK(fake_give("container-image", "ubuntu") == 0);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(library_was_told("context=submit\nabi=2\noption="));
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

static void refused_submission(void)
{
	start_in(S_CTX_LOCAL);
	ANSWERS(-1, "error=no such image\0hint=look again");
	CHECK(fake_give("container-image", "none") == 0);
	CHECK(call_in_child(slurm_spank_init_post_opt) == 101);
	CHECK_TEXT(fake_log(),
		   "error: brolga: error: no such image\nerror: brolga: hint: look again\n");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

/* srun(1): SLURM_EXIT_ERROR is the status of srun's own errors. */
static void status_of_refusal(void)
{
	static const struct {
		const char *variable;
		int want;
	} cases[] = { { "7", 107 }, { "0", 101 }, { "-1", 101 }, { "text", 101 }, { "", 101 } };

	start_in(S_CTX_LOCAL);
	ANSWERS(-1, "reported=1");
	CHECK(fake_give("container-image", "none") == 0);
	for (size_t i = 0; i < COUNT(cases); i++) {
		setenv("SLURM_EXIT_ERROR", cases[i].variable, 1);
		CHECK(call_in_child(slurm_spank_init_post_opt) == cases[i].want);
	}
	/* The user has read why already. */
	CHECK_TEXT(fake_log(), "");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

static void refusal_without_reason(void)
{
	start_in(S_CTX_LOCAL);
	ANSWERS(-1, "");
	CHECK(fake_give("container-image", "none") == 0);
	CHECK(call_in_child(slurm_spank_init_post_opt) == 101);
	CHECK_TEXT(fake_log(), "error: brolga: error: internal error: no reason was given\n");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

/* What srun does once the step has its nodes. */
static int launch(const char *reply, size_t length)
{
	start_in(S_CTX_LOCAL);
	library_answers(0, reply, length);
	CHECK(fake_give("container-image", "ubuntu") == 0);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	return slurm_spank_local_user_init(NULL, 0, NULL);
}
#define LAUNCH(reply) launch(reply, sizeof(reply))

static void launch_with_peers(void)
{
	static node_info_t cluster[] = {
		{ .name = "n1", .node_addr = "10.0.0.1" },
		{ .name = "n2", .node_addr = "n2" },
		{ .name = "n3" },
		{ .node_addr = "10.0.0.4" },
		{ .name = "n5", .node_addr = "10.0.0.5" },
	};

	fake.cluster = cluster;
	fake.cluster_size = COUNT(cluster);
	setenv("SLURM_NODELIST", "n[1-5]", 1);
	CHECK(LAUNCH("env=BROLGA_STEP_A=b=c\0peers=1") == 0);
	CHECK(library()->submits == 1 && library()->launches == 1);
	CHECK(library_was_told(
		"context=launch\nnode_list=n[1-5]\nnode_name=n1\nnode_address=10.0.0.1\n"
		"node_name=n5\nnode_address=10.0.0.5\nend\n"));
	CHECK_TEXT(getenv("BROLGA_STEP_A"), "b=c");
	CHECK_TEXT(getenv("SLURM_BROLGA_STEP_A"), "b=c"); /* past --export */
	CHECK_TEXT(fake_log(), "");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

/* A site may keep its nodes from users: that is for the nodes to bear. */
static void launch_in_the_dark(void)
{
	unsetenv("SLURM_NODELIST");
	CHECK(LAUNCH("peers=1") == 0);
	CHECK(library_was_told("context=launch\nnode_list=\nend\n"));
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

/* srun calls once for each component before it has nodes, and once after. */
static void launch_of_components(void)
{
	static node_info_t cluster[] = { { .name = "n1", .node_addr = "10.0.0.1" } };

	fake.cluster = cluster;
	fake.cluster_size = COUNT(cluster);
	setenv("SLURM_NODELIST", "n1", 1);
	start_in(S_CTX_LOCAL);
	ANSWERS(0, "env=BROLGA_STEP_A=b\0peers=1");
	CHECK(fake_give("container-image", "ubuntu") == 0);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(library()->launches == 0);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(library()->launches == 1);
	CHECK(library_was_told(
		"context=launch\nnode_list=\nnode_name=n1\nnode_address=10.0.0.1\nend\n"));
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(slurm_spank_local_user_init(NULL, 0, NULL) == 0);
	CHECK(library()->launches == 1);
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

static void components_add_up(void)
{
	start_in(S_CTX_LOCAL);
	CHECK(fake_give("container-image", "ubuntu") == 0);
	ANSWERS(0, "env=BROLGA_FIRST=a");
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	ANSWERS(0, "env=BROLGA_OTHER=b");
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK_TEXT(getenv("BROLGA_FIRST"), "a");
	CHECK_TEXT(getenv("BROLGA_OTHER"), "b");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

static void launch_without_peers(void)
{
	CHECK(LAUNCH("env=BROLGA_PIN=a@b") == 0);
	CHECK(library()->launches == 0);
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

static void refused_launch(void)
{
	CHECK(LAUNCH("peers=1") == 0);
	ANSWERS(-1, "error=too many nodes\0hint=take fewer");
	CHECK(slurm_spank_local_user_init(NULL, 0, NULL) == -1);
	CHECK_TEXT(fake_log(),
		   "error: brolga: error: too many nodes\nerror: brolga: hint: take fewer\n");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

/* ---- slurmstepd ---- */

/* Starts a step that asks for a container. */
static void start_step_with(const char *helper)
{
	helper_install(helper);
	start_in(S_CTX_REMOTE);
	CHECK(fake_give("container-image", "ubuntu") == 0);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
}

static void start_step(void)
{
	start_step_with("fake_helper");
}

static void expect_task_ends(int number, const char *log)
{
	size_t before = strlen(fake_log());

	fake.task = number;
	CHECK(call_in_child(slurm_spank_task_init_privileged) == 0);
	CHECK(call_in_child(slurm_spank_task_init) == 101);
	CHECK_TEXT(fake_log() + before, log);
}

/* What the helper was told, as text. */
static bool helper_was_told(const char *line)
{
	size_t length;
	char *message = helper_message(&length);
	char *text = records_text(message, length);
	bool found = strstr(text, line) != NULL;

	if (!found)
		fprintf(stderr, "the helper was told:\n%s", text);
	free(message);
	free(text);
	return found;
}

static void step_of_two_tasks(void)
{
	fake.uid = 0;
	fake.gid = 0;
	start_step();
	CHECK(helper_was_told("context=node\nabi=2\nconfig=/etc/brolga/brolga.toml\n"
			      "option=container-image\nvalue=ubuntu\n"
			      "job=5\nstep=0\nnodes=1\ntasks=2\nuid=0\ngid=0\naccount=root\n"));
	CHECK(slurm_spank_task_post_fork(NULL, 0, NULL) == 0);
	CHECK(!helper_has_ended());
	CHECK(slurm_spank_task_post_fork(NULL, 0, NULL) == 0);
	helper_wait_for_end();
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
	CHECK_TEXT(fake_log(), "");
	CHECK(!library_is_loaded());
}

/* What the helper left in its socket is another one's when the step has ended. */
static void step_with_poststop(void)
{
	char *note;

	helper_install("fake_helper");
	start_in(S_CTX_REMOTE);
	CHECK(fake_give("container-image", "image-that-leaves-a-note") == 0);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(helper_was_told("context=node\n"));
	CHECK(slurm_spank_task_post_fork(NULL, 0, NULL) == 0);
	CHECK(slurm_spank_task_post_fork(NULL, 0, NULL) == 0);
	helper_wait_for_end();
	CHECK_TEXT(fake_log(), "");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
	CHECK_TEXT(fake_log(), "error: brolga: first\nerror: brolga: read: the note\n");
	note = helper_start_note();
	CHECK(strstr(note, "\nargument poststop\nfd 0\nfd 1\nfd 2\nfd 3\nenv PATH="));
	free(note);
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0); /* once */
	CHECK_TEXT(fake_log(), "error: brolga: first\nerror: brolga: read: the note\n");
}

static void poststop_without_helper(void)
{
	helper_install("fake_helper");
	start_in(S_CTX_REMOTE);
	CHECK(fake_give("container-image", "image-that-leaves-a-note") == 0);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(helper_was_told("context=node\n"));
	helper_install(NULL);
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
	CHECK_TEXT(fake_log(), "error: brolga: run what hooks do at poststop: " BROLGA_HELPER
			       ": No such file or directory\n");
}

static void step_without_tasks(void)
{
	start_step();
	CHECK(helper_was_told("context=node\n"));
	CHECK(!helper_has_ended());
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
	helper_wait_for_end();
}

static void step_by_variable(void)
{
	char *environment[] = { "BROLGA_CONTAINER_IMAGE=ubuntu", NULL };

	helper_install("fake_helper");
	fake.env = environment;
	start_in(S_CTX_REMOTE);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(helper_was_told("\nenv=BROLGA_CONTAINER_IMAGE=ubuntu\n"));
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

/* What helpers share is told to the helper and to no task. */
static void step_with_secret(void)
{
	char *environment[] = { "SLURM_BROLGA_STEP_A=1",   "BROLGA_STEP_SECRET=2", "HOME=/",
				"BROLGA_STEP_ADDRESSES=3", "BROLGA_STEPS=4",	   NULL };

	helper_install("fake_helper");
	fake.env = environment;
	start_in(S_CTX_REMOTE);
	CHECK(fake_give("container-image", "ubuntu") == 0);
	CHECK(slurm_spank_init_post_opt(NULL, 0, NULL) == 0);
	CHECK(helper_was_told(
		"\nenv=BROLGA_STEP_SECRET=2\nenv=HOME=/\nenv=BROLGA_STEP_ADDRESSES=3\n"));
	CHECK_TEXT(fake.env[0], "HOME=/");
	CHECK_TEXT(fake.env[1], "BROLGA_STEPS=4");
	CHECK(!fake.env[2]);
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

/* A user can forge any number of them; all are gone, and the others keep their order. */
static void step_with_forged_secrets(void)
{
	enum { FORGED = 20000 };
	static char *environment[FORGED + 3];
	static char names[FORGED][32];

	environment[0] = "FIRST=1";
	for (int i = 0; i < FORGED; i++) {
		snprintf(names[i], sizeof(names[i]), "BROLGA_STEP_%d=x", i);
		environment[i + 1] = names[i];
	}
	environment[FORGED + 1] = "LAST=2";
	fake.env = environment;
	peers_forget(NULL);
	CHECK_TEXT(fake.env[0], "FIRST=1");
	CHECK_TEXT(fake.env[1], "LAST=2");
	CHECK(!fake.env[2]);
}

static void extern_step(void)
{
	fake.step = 0xfffffffcu;
	start_in(S_CTX_REMOTE);
	CHECK(fake_give("container-image", "ubuntu") == 0);
	expect_nothing_happens();
}

/* Before tasks exist a failure would drain the node: it is each task's. */
static void failed_step(void)
{
	start_step_with(NULL);
	expect_task_ends(0, "error: brolga: error: start the helper " BROLGA_HELPER
			    ": No such file or directory\n");
	expect_task_ends(1, ""); /* all tasks fail alike: the first one says why */
	CHECK(slurm_spank_task_post_fork(NULL, 0, NULL) == 0);
	CHECK(slurm_spank_task_post_fork(NULL, 0, NULL) == 0);
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

static void unknown_task(void)
{
	start_step_with(NULL);
	fake_refuse(S_TASK_ID);
	expect_task_ends(3, "error: brolga: error: start the helper " BROLGA_HELPER
			    ": No such file or directory\n");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

static void unknown_facts(void)
{
	fake_refuse(S_JOB_UID);
	start_step();
	expect_task_ends(0, "error: brolga: error: Slurm does not tell the facts of this step\n");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

/* The helper is gone: the task must not run on the host. */
static void helper_dies(void)
{
	if (geteuid() != 0)
		return; /* join_test says so */
	start_step();
	helper_kill();
	expect_task_ends(0, "error: brolga: error: the helper ended without an answer\n"
			    "error: brolga: hint: it was killed, perhaps for lack of memory; the "
			    "node's kernel log tells\n");
	CHECK(slurm_spank_exit(NULL, 0, NULL) == 0);
}

#define NOTES BROLGA_RUNDIR "/unnamed"

/* On a node on which nothing is noted. */
static void end_jobs_on(const char *node)
{
	setenv("SLURMD_NODENAME", node, 1);
	helper_install(NULL);
	fake.context = S_CTX_JOB_SCRIPT;
	if (system("rm -rf " BROLGA_RUNDIR " && mkdir -p " NOTES " && chmod 0755 " NOTES) != 0)
		give_up("make %s", NOTES);
}

/* Whether the end of a job starts the helper, which is not there. */
static bool helper_is_missed(int ac, char **av)
{
	size_t before = strlen(fake_log());

	CHECK(slurm_spank_job_epilog(NULL, ac, av) == 0);
	return strlen(fake_log()) > before;
}

static void write_note(const char *path, const char *text)
{
	FILE *note = fopen(path, "w");

	if (!note || fputs(text, note) < 0 || fclose(note) != 0)
		give_up("write %s", path);
}

/* Anything but 0 would drain the node. */
static void end_of_a_job(void)
{
	char *note;

	end_jobs_on("n1");
	setenv("SLURM_CONF", "/etc/slurm/x.conf", 1);
	setenv("SPANK_X", "of the user", 1);
	helper_install("fake_helper");
	CHECK(slurm_spank_job_epilog(NULL, 1, config_argument) == 0);
	note = helper_start_note();
	CHECK(strstr(note, "argument end\nargument /etc/brolga/brolga.toml\nargument n1\n"
			   "argument 5\nfd 0\nfd 1\nfd 2\nenv PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"
			   "env LC_ALL=C.UTF-8\nenv SLURM_CONF=/etc/slurm/x.conf\n"));
	CHECK(!strstr(note, "SPANK_X"));
	free(note);
	CHECK_TEXT(fake_log(), "error: brolga: removed\nerror: brolga: not removed\n");
}

static void end_of_a_job_without_helper(void)
{
	end_jobs_on("n1");
	CHECK(slurm_spank_job_epilog(NULL, 1, config_argument) == 0);
	CHECK_TEXT(fake_log(),
		   "error: brolga: remove containers of job 5: the helper has failed\n");
	fake_refuse(S_JOB_ID);
	CHECK(slurm_spank_job_epilog(NULL, 1, config_argument) == 0);
}

/* Where the node has no named container, and somebody who may says so. */
static void end_of_a_job_without_containers(void)
{
	end_jobs_on("n1");
	CHECK(helper_is_missed(0, NULL));
	write_note(NOTES "/n1", "");
	CHECK(!helper_is_missed(0, NULL));
	CHECK(helper_is_missed(1, config_argument));
	write_note(NOTES "/n1", "/etc/brolga/brolga.toml");
	CHECK(!helper_is_missed(1, config_argument));
	write_note(NOTES "/n1", "/etc/brolga/brolga.toml.old");
	CHECK(helper_is_missed(1, config_argument));
	write_note(NOTES "/n1", "/etc/brolga/others.toml");
	CHECK(helper_is_missed(1, config_argument));
}

/* It may be of a step whose slurmstepd was killed. */
static void end_of_a_job_with_something_left(void)
{
	end_jobs_on("n1");
	write_note(NOTES "/n1", "");
	CHECK(mkdir(BROLGA_RUNDIR "/poststop", 0700) == 0);
	write_note(BROLGA_RUNDIR "/poststop/.new-step-5.0-1", "");
	CHECK(!helper_is_missed(0, NULL));
	write_note(BROLGA_RUNDIR "/poststop/step-5.0-1", "");
	CHECK(helper_is_missed(0, NULL));
}

static void end_of_a_job_with_a_false_note(void)
{
	end_jobs_on("n2");
	write_note(NOTES "/n1", "/etc/brolga/brolga.toml");
	CHECK(helper_is_missed(1, config_argument)); /* it is another node's */
	CHECK(symlink("n1", NOTES "/n2") == 0);
	CHECK(helper_is_missed(1, config_argument));

	setenv("SLURMD_NODENAME", "n1", 1);
	CHECK(chmod(NOTES, 0775) == 0);
	CHECK(helper_is_missed(1, config_argument));
	CHECK(chmod(NOTES, 0755) == 0);
	CHECK(!helper_is_missed(1, config_argument));
	CHECK(rename(NOTES, BROLGA_RUNDIR "/others") == 0 && symlink("others", NOTES) == 0);
	CHECK(helper_is_missed(1, config_argument));
}

int main(void)
{
	static const struct test tests[] = {
		{ "slurmd and job scripts are left alone", other_contexts },
		{ "nothing is loaded for a step without options", no_options },
		{ "an unknown argument in plugstack.conf ends srun", bad_arguments },
		{ "an unknown argument on a node fails the step", bad_arguments_on_a_node },
		{ "a name that is taken ends srun, not slurmstepd", taken_names },
		{ "srun checks options and takes over variables", submission },
		{ "sbatch looks at variables", submission_by_variable },
		{ "without config= no path is passed", submission_without_config },
		{ "a refusal ends srun with its reason", refused_submission },
		{ "a refusal has the status the user chose", status_of_refusal },
		{ "a refusal without reason is an internal error", refusal_without_reason },
		{ "srun tells the library the nodes of the step", launch_with_peers },
		{ "a cluster that hides its nodes is no obstacle", launch_in_the_dark },
		{ "components of a step are told all nodes, before srun has theirs",
		  launch_of_components },
		{ "what one component sets stays when another is asked for", components_add_up },
		{ "srun asks nobody for nodes that no option needs", launch_without_peers },
		{ "a launch that is refused ends srun with its reason", refused_launch },
		{ "tasks do not get what is for helpers", step_with_secret },
		{ "thousands of forged secrets are taken from tasks", step_with_forged_secrets },
		{ "slurmstepd lets go of the socket with the last task", step_of_two_tasks },
		{ "slurmstepd lets go of the socket at its end", step_without_tasks },
		{ "what the helper leaves for the end is done then", step_with_poststop },
		{ "a helper that is missing in the end is named", poststop_without_helper },
		{ "slurmstepd looks at the step's variables", step_by_variable },
		{ "the extern step is left alone", extern_step },
		{ "a step that failed ends its tasks with words", failed_step },
		{ "a task without number says why", unknown_task },
		{ "a step without facts fails", unknown_facts },
		{ "a task without helper ends", helper_dies },
		{ "the end of a job is the helper's", end_of_a_job },
		{ "the end of a job never drains the node", end_of_a_job_without_helper },
		{ "a job ends without the helper where no container is",
		  end_of_a_job_without_containers },
		{ "the end of a job starts the helper for what steps have left",
		  end_of_a_job_with_something_left },
		{ "only root says that no container is there", end_of_a_job_with_a_false_note },
	};

	return run_tests("plugin_test", tests, COUNT(tests));
}
