/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BROLGA_TEST_HELPER_NOTES_H
#define BROLGA_TEST_HELPER_NOTES_H

#include <stdbool.h>
#include <stddef.h>

/* Makes the helper a file of the build directory, NULL: none; forgets notes. */
void helper_install(const char *name);

/* Each waits for the note; the caller frees it. */
char *helper_message(size_t *length);
char *helper_start_note(void);

/* Kills the helper and returns when it is dead. */
void helper_kill(void);

/* Whether the helper has seen that nobody holds the tasks' end any more. */
bool helper_has_ended(void);
void helper_wait_for_end(void);

#endif
