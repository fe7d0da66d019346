/* SPDX-License-Identifier: Apache-2.0 */
/*
 * label_test - what is written to the files of /proc/self/attr. They are those of a
 * directory here: few machines have AppArmor and SELinux.
 */
#include "check.h"

#include "../shim.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int dir;

static void make_file(const char *name)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	close(fd);
}

static const char *content(const char *name)
{
	static char text[LABEL_MAX];
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	CHECK(n >= 0);
	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static void new_kernel(void)
{
	struct task_error error = { 0 };

	CHECK(mkdirat(dir, "apparmor", 0700) == 0);
	make_file("apparmor/exec");
	make_file("exec");
	CHECK(label_set(dir, "site-containers", "system_u:system_r:container_t:s0", &error) == 0);
	CHECK_TEXT(content("apparmor/exec"), "exec site-containers");
	CHECK_TEXT(content("exec"), "system_u:system_r:container_t:s0");
	unlinkat(dir, "apparmor/exec", 0);
	unlinkat(dir, "apparmor", AT_REMOVEDIR);
}

static void old_kernel(void)
{
	struct task_error error = { 0 };

	make_file("exec");
	CHECK(label_set(dir, "site-containers", NULL, &error) == 0);
	CHECK_TEXT(content("exec"), "exec site-containers");
}

static void nothing_wanted(void)
{
	struct task_error error = { 0 };

	CHECK(label_set(-1, NULL, NULL, &error) == 0);
	CHECK_TEXT(error.text, "");
}

static void no_such_kernel(void)
{
	struct task_error error = { 0 };

	unlinkat(dir, "exec", 0);
	CHECK(label_set(dir, "a", NULL, &error) == -1);
	CHECK_TEXT(error.text,
		   "change to the site's AppArmor profile a: No such file or directory");
	CHECK(label_set(dir, NULL, "b", &error) == -1);
	CHECK_TEXT(error.text, "change to the site's SELinux label b: No such file or directory");
	CHECK(label_set(-1, "a", NULL, &error) == -1);
	CHECK_TEXT(error.text, "change to the site's AppArmor profile a: Bad file descriptor");
}

static void too_long(void)
{
	static char label[LABEL_MAX + 1];
	struct task_error error = { 0 };

	make_file("exec");
	memset(label, 'x', LABEL_MAX);
	CHECK(label_set(dir, NULL, label, &error) == -1);
	CHECK_TEXT(content("exec"), "");
}

/* The kernel of this machine has the directory, or label_open says that it has not. */
static void own_directory(void)
{
	struct stat status;
	int fd = label_open();

	CHECK((fd >= 0) == (stat("/proc/self/attr", &status) == 0));
	if (fd >= 0)
		close(fd);
}

int main(void)
{
	static const struct test tests[] = {
		{ "profile and label are written where a kernel has both", new_kernel },
		{ "a kernel with one file gets the profile there", old_kernel },
		{ "nothing is written where the site wants nothing", nothing_wanted },
		{ "a kernel without them is an error", no_such_kernel },
		{ "a label that is too long is not cut", too_long },
		{ "the directory is this process's", own_directory },
	};
	char path[] = "/tmp/label_test.XXXXXX";
	int rc;

	if (!mkdtemp(path) || (dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
		perror(path);
		return EXIT_FAILURE;
	}
	rc = run_tests("label_test", tests, sizeof(tests) / sizeof(*tests));
	unlinkat(dir, "exec", 0);
	close(dir);
	rmdir(path);
	return rc;
}
