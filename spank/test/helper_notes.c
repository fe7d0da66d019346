/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helper_notes.c - reads what the fake helper notes.
 */
#include "helper_notes.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "fake_helper.h"

void helper_install(const char *name)
{
	unlink(HELPER_START);
	unlink(HELPER_MESSAGE);
	unlink(HELPER_ENDED);
	unlink(BROLGA_HELPER);
	if (name && symlink(name, BROLGA_HELPER) < 0)
		give_up("link %s", name);
}

/* Notes come when the helper gets to them; a test that hangs is ended. */
static char *wait_for(const char *path, size_t *length)
{
	char *text = NULL;
	FILE *f;

	while (!(f = fopen(path, "r")))
		usleep(1000);
	*length = 0;
	do {
		text = realloc(text, *length + 65537);
		if (!text)
			give_up("allocate");
		*length += fread(text + *length, 1, 65536, f);
	} while (!feof(f) && !ferror(f));
	fclose(f);
	text[*length] = '\0';
	return text;
}

char *helper_message(size_t *length)
{
	return wait_for(HELPER_MESSAGE, length);
}

char *helper_start_note(void)
{
	size_t length;

	return wait_for(HELPER_START, &length);
}

void helper_kill(void)
{
	char *note = helper_start_note();
	pid_t pid = (pid_t)atoi(note + strlen("pid "));
	char path[64], state[8] = "";

	free(note);
	kill(pid, SIGKILL);
	/* It is no child of ours to be waited for; dead is enough. */
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	while (strcmp(state, "Z") != 0) {
		FILE *f = fopen(path, "r");

		if (!f)
			return;
		if (fscanf(f, "%*d (%*[^)]) %7s", state) != 1)
			state[0] = '\0';
		fclose(f);
		usleep(1000);
	}
}

bool helper_has_ended(void)
{
	return access(HELPER_ENDED, F_OK) == 0;
}

void helper_wait_for_end(void)
{
	size_t length;

	free(wait_for(HELPER_ENDED, &length));
}
