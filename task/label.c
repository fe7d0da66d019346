/* SPDX-License-Identifier: Apache-2.0 */
/*
 * label.c - the AppArmor profile and the SELinux label of a task.
 *
 * The kernel keeps what is written for the next execve(2) (apparmor(7), setexeccon(3)).
 * The files are those of the host's /proc: the container's is the image's to cover.
 */
#include "task.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Returns the directory of this process's attributes, or -1. Before joining. */
int label_open(void)
{
	return open("/proc/self/attr", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* A write is a whole command. The kernel wants the credentials that opened the file. */
static int write_label(int attributes, const char *name, const char *command, const char *label)
{
	char text[LABEL_MAX];
	int length = snprintf(text, sizeof(text), "%s%s", command, label);
	autoclose int fd = openat(attributes, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (length >= (int)sizeof(text)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return write(fd, text, (size_t)length) == length ? 0 : -1;
}

/*
 * Has the kernel change to the profile and the label at the next execve(2). Either may be
 * NULL. A task that cannot get what the site wants does not start.
 */
int label_set(int attributes, const char *apparmor, const char *selinux, struct task_error *error)
{
	if (apparmor && write_label(attributes, "apparmor/exec", "exec ", apparmor) < 0 &&
	    (errno != ENOENT || write_label(attributes, "exec", "exec ", apparmor) < 0))
		return fail_errno(error, "change to the site's AppArmor profile %s", apparmor);
	if (selinux && write_label(attributes, "exec", "", selinux) < 0)
		return fail_errno(error, "change to the site's SELinux label %s", selinux);
	return 0;
}
