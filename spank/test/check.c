/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

void check(const char *file, int line, bool condition, const char *text)
{
	if (condition)
		return;
	fprintf(stderr, "%s:%d: not true: %s\n", file, line, text);
	failures++;
}

void check_text(const char *file, int line, const char *what, const char *got, const char *want)
{
	if (got && want && strcmp(got, want) == 0)
		return;
	fprintf(stderr, "%s:%d: %s = \"%s\"; want \"%s\"\n", file, line, what, got ? got : "(null)",
		want ? want : "(null)");
	failures++;
}

void give_up(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, ": %s\n", strerror(errno));
	exit(EXIT_FAILURE);
}

static bool passes(const struct test *test)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		give_up("fork");
	if (pid == 0) {
		alarm(60); /* a test that hangs has failed */
		test->run();
		exit(failures ? EXIT_FAILURE : EXIT_SUCCESS);
	}
	if (waitpid(pid, &status, 0) < 0)
		give_up("wait");
	if (WIFSIGNALED(status))
		fprintf(stderr, "ended by signal %d\n", WTERMSIG(status));
	return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

int run_tests(const char *program, const struct test *tests, size_t count)
{
	int passed = 0, failed = 0;

	for (size_t i = 0; i < count; i++) {
		if (passes(&tests[i])) {
			passed++;
			continue;
		}
		fprintf(stderr, "%s: FAILED: %s\n", program, tests[i].name);
		failed++;
	}
	printf("%s: %d passed, %d failed\n", program, passed, failed);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void print_escaped(FILE *out, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c >= 0x20 && c < 0x7f && c != '\\')
			fputc(c, out);
		else
			fprintf(out, "\\x%02x", c);
	}
}

char *records_text(const char *data, size_t length)
{
	const char *at = data, *end = data + length, *key, *value;
	size_t key_length, size;
	char *text;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		give_up("open_memstream");
	while ((value = record_next(&at, end, &key, &key_length))) {
		print_escaped(out, key, key_length);
		fputc('=', out);
		print_escaped(out, value, strlen(value));
		fputc('\n', out);
	}
	fputs(at == end ? "end\n" : "malformed\n", out);
	fclose(out);
	return text;
}

char *read_file(const char *path, size_t *length)
{
	FILE *in = fopen(path, "re");
	char *data = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&data, &size);
	int c;

	if (!in || !out)
		give_up("open %s", path);
	while ((c = fgetc(in)) != EOF)
		fputc(c, out);
	fclose(in);
	fclose(out);
	*length = size;
	return data;
}
