/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire_test.c - records. The golden files in testdata are those of pkg/wire: C
 * and Go read them alike.
 */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static void compare_golden(const char *path)
{
	char expected_path[512];
	size_t length, expected_length;
	char *data = read_file(path, &length), *got, *want;

	snprintf(expected_path, sizeof(expected_path), "%.*s.expected",
		 (int)(strlen(path) - strlen(".records")), path);
	want = read_file(expected_path, &expected_length);
	got = records_text(data, length);
	if (strcmp(got, want) != 0)
		fprintf(stderr, "%s:\n", path);
	CHECK_TEXT(got, want);
	free(got);
	free(want);
	free(data);
}

static void golden_files(void)
{
	glob_t found;

	if (glob("testdata/*.records", 0, NULL, &found) != 0)
		give_up("no golden files");
	for (size_t i = 0; i < found.gl_pathc; i++)
		compare_golden(found.gl_pathv[i]);
	globfree(&found);
}

/* The copy ends where the message does, so that ASan sees a read beyond. */
static void every_prefix(void)
{
	size_t length;
	char *data = read_file("testdata/call.records", &length);

	for (size_t n = 0; n <= length; n++) {
		char *prefix = malloc(n ? n : 1);
		char *text;
		bool whole = n == 0 || data[n - 1] == '\0';

		memcpy(prefix, data, n);
		text = records_text(prefix, n);
		CHECK(whole == (strstr(text, "malformed\n") == NULL));
		free(text);
		free(prefix);
	}
	free(data);
}

static void written_as_read(void)
{
	struct message m = { 0 };
	char *text;

	message_add(&m, "key", "value");
	message_add(&m, "empty", "");
	message_add(&m, "equals", "a=b");
	message_add_number(&m, "number", 4294967295ul);
	CHECK(!m.failed);
	text = records_text(m.data, m.length);
	CHECK_TEXT(text, "key=value\nempty=\nequals=a=b\n"
			 "number=4294967295\nend\n");
	free(text);
	message_free(&m);
	CHECK(m.data == NULL && m.length == 0);
}

static void grows(void)
{
	struct message m = { 0 };
	const char *at, *key, *value;
	size_t length, count = 0;
	char number[16];

	for (int i = 0; i < 20000; i++) {
		snprintf(number, sizeof(number), "%d", i);
		message_add(&m, "n", number);
	}
	CHECK(!m.failed);
	at = m.data;
	while ((value = record_next(&at, m.data + m.length, &key, &length))) {
		CHECK(record_is(key, length, "n") && (size_t)atoi(value) == count);
		count++;
	}
	CHECK(count == 20000 && at == m.data + m.length);
	message_free(&m);
}

static void too_large(void)
{
	static const size_t size = 5u << 20;
	struct message m = { 0 };
	char *value = malloc(size + 1);
	size_t before;

	memset(value, 'x', size);
	value[size] = '\0';
	message_add(&m, "first", value);
	CHECK(!m.failed);
	before = m.length;
	message_add(&m, "second", value);
	CHECK(m.failed && m.length == before);
	/* One that would fit does not hide that another is missing. */
	message_add(&m, "third", "small");
	CHECK(m.failed && m.length == before);
	free(value);
	message_free(&m);
	CHECK(!m.failed);
}

static void keys_are_compared_whole(void)
{
	CHECK(record_is("error=x", 5, "error"));
	CHECK(!record_is("error=x", 5, "err"));
	CHECK(!record_is("err=x", 3, "error"));
	CHECK(!record_is("Error=x", 5, "error"));
}

static void close_once(void)
{
	int fd = -1;

	close_fd(&fd);
	CHECK(fd == -1);
	fd = 1000; /* not open: closing it is no crash */
	close_fd(&fd);
	CHECK(fd == -1);
}

int main(void)
{
	static const struct test tests[] = {
		{ "golden files are read as Go reads them", golden_files },
		{ "only whole records are read, whatever is cut off", every_prefix },
		{ "what is written is read back", written_as_read },
		{ "a message grows", grows },
		{ "a message that grows too large fails and stays failed", too_large },
		{ "keys are compared as a whole", keys_are_compared_whole },
		{ "a descriptor is closed once", close_once },
	};

	return run_tests("wire_test", tests, COUNT(tests));
}
