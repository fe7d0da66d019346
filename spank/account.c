/* SPDX-License-Identifier: Apache-2.0 */
/*
 * account.c - what the node's name services (nsswitch.conf(5)) say of the job's
 * user and groups.
 *
 * Asked here because slurmstepd has the name services loaded; the helper is a
 * static program without them, which starts meanwhile.
 */
#include "shim.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Entries of large groups take megabytes; more than this is no entry. */
#define ENTRY_MAX (64u << 20)

/* Doubles the buffer of a look-up that answered ERANGE; 0 ends the attempts. */
static int grow(char **buffer, size_t *size)
{
	char *larger;

	*size = *size ? *size * 2 : 4096;
	larger = *size <= ENTRY_MAX ? realloc(*buffer, *size) : NULL;
	if (!larger)
		return ENOMEM;
	*buffer = larger;
	return 0;
}

static void add_user(struct message *m, uid_t uid, char **buffer, size_t *size)
{
	struct passwd entry, *found = NULL;
	int error = *buffer ? 0 : grow(buffer, size);

	while (!error && (error = getpwuid_r(uid, &entry, *buffer, *size, &found)) == ERANGE)
		error = grow(buffer, size);
	if (!found) {
		message_add(m, "account_error", error ? strerror(error) : "no such user");
		return;
	}
	message_add(m, "account", entry.pw_name);
	message_add(m, "gecos", entry.pw_gecos ? entry.pw_gecos : "");
	message_add(m, "home", entry.pw_dir ? entry.pw_dir : "");
}

/* A group that the node does not know is left out. */
static void add_group(struct message *m, gid_t gid, char **buffer, size_t *size)
{
	struct group entry, *found = NULL;
	int error = *buffer ? 0 : grow(buffer, size);

	while (!error && (error = getgrgid_r(gid, &entry, *buffer, *size, &found)) == ERANGE)
		error = grow(buffer, size);
	if (!found)
		return;
	message_add_number(m, "named_group", gid);
	message_add(m, "group_name", entry.gr_name);
}

/* Slurm may list the primary group among the supplementary ones. */
void account_add(struct message *m, uid_t uid, gid_t gid, const gid_t *groups, int count)
{
	char *buffer = NULL;
	size_t size = 0;

	add_user(m, uid, &buffer, &size);
	add_group(m, gid, &buffer, &size);
	for (int i = 0; i < count; i++)
		if (groups[i] != gid)
			add_group(m, groups[i], &buffer, &size);
	free(buffer);
}
