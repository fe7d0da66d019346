/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.c - the one reader of the helper's plan (spank/PROTOCOL.md).
 */
#include "task.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Reports whether all of a plan is records. */
static bool is_whole(struct plan plan)
{
	const char *key;
	size_t length;

	while (record_next(&plan.at, plan.end, &key, &length))
		;
	return plan.at == plan.end;
}

int plan_open(int fd, struct plan *plan, struct task_error *error)
{
	struct stat status;
	const char *text;

	if (fstat(fd, &status) < 0 || status.st_size <= 0)
		return fail(error, "internal error: the helper's plan is empty");
	text = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (text == MAP_FAILED)
		return fail_errno(error, "map the helper's plan");
	*plan = (struct plan){ text, text + status.st_size };
	if (!is_whole(*plan))
		return fail(error, "internal error: the helper's plan is malformed");
	return 0;
}

const char *plan_next(struct plan *plan, const char *wanted)
{
	const char *key, *value;
	size_t length;

	while ((value = record_next(&plan->at, plan->end, &key, &length)))
		if (record_is(key, length, wanted))
			return value;
	return NULL;
}

const char *plan_find(struct plan plan, const char *key)
{
	return plan_next(&plan, key);
}
