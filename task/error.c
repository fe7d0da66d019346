/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.c - what is wrong, in a buffer: nothing can be allocated here.
 */
#include "task.h"

#include <stdarg.h>
#include <stdio.h>

int fail(struct task_error *error, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	return -1;
}
