/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - what every test program is made of: a table of functions, each of
 * which runs in a process of its own and says CHECK.
 */
#ifndef BROLGA_TEST_CHECK_H
#define BROLGA_TEST_CHECK_H

#include <stdbool.h>
#include <stddef.h>

#include "../shim.h"

/* A test is named by the sentence that it makes true. */
struct test {
	const char *name;
	void (*run)(void);
};

/* Runs all tests and prints one line; returns main's status. */
int run_tests(const char *program, const struct test *tests, size_t count);

/* Notes a failure and goes on. */
#define CHECK(condition) check(__FILE__, __LINE__, condition, #condition)
#define CHECK_TEXT(got, want) check_text(__FILE__, __LINE__, #got, got, want)
void check(const char *file, int line, bool condition, const char *text);
void check_text(const char *file, int line, const char *what, const char *got, const char *want);

/* Ends the test: the machine, not the code under test, is at fault. */
__attribute__((noreturn, format(printf, 1, 2))) void give_up(const char *format, ...);

/*
 * Returns the records of a message as lines "key=value", then the line "end" or
 * "malformed". Bytes that are not printable become \xNN. The caller frees it.
 */
char *records_text(const char *data, size_t length);

/* The whole file and its length; the caller frees it. */
char *read_file(const char *path, size_t *length);

#endif
