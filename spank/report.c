/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report.c - says what is wrong, through Slurm.
 */
#include "shim.h"

/* hint may be NULL or empty. */
void report(const char *error, const char *hint)
{
	slurm_error("brolga: error: %s", error ? error : "internal error: no reason was given");
	if (hint && *hint)
		slurm_error("brolga: hint: %s", hint);
}

/* The same for the records of a reply. */
void report_reply(const char *reply, size_t size)
{
	report(record_find(reply, size, "error"), record_find(reply, size, "hint"));
}
