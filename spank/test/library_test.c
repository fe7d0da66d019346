/* SPDX-License-Identifier: Apache-2.0 */
/*
 * library_test.c - loading a library that may be missing or of another release.
 * BROLGA_LIBRARY is a link that each test points somewhere else.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "fake_library.h"

static char reply[ANSWER_MAX];

/* Makes the library one of those in the build directory; NULL: none. */
static void install(const char *name)
{
	unlink(BROLGA_LIBRARY);
	if (name && symlink(name, BROLGA_LIBRARY) < 0)
		give_up("link %s", name);
}

static struct fake_library *loaded(void)
{
	return dlsym(dlopen(BROLGA_LIBRARY, RTLD_NOW | RTLD_NOLOAD), "fake_library");
}

/* Calls the library with one record. */
static int submit(void)
{
	struct message m = { 0 };
	int rc;

	memset(reply, 'x', sizeof(reply));
	message_add(&m, "context", "submit");
	rc = library_submit(&m, reply, sizeof(reply));
	message_free(&m);
	return rc;
}

static void expect_reply(const char *want)
{
	char *text = records_text(reply, sizeof(reply));

	/* The padding is what ends the records. */
	CHECK(strstr(text, "malformed\n") != NULL);
	*strstr(text, "malformed\n") = '\0';
	CHECK_TEXT(text, want);
	free(text);
}

static void missing(void)
{
	install(NULL);
	CHECK(submit() == -1);
	expect_reply("error=" BROLGA_LIBRARY ": cannot open shared object file: No such file or "
		     "directory\nhint=ask the administrator to reinstall Brolga\n");
}

static void no_library(void)
{
	install("fake_library.c");
	CHECK(submit() == -1);
	CHECK(strstr(reply, "error=" BROLGA_LIBRARY) == reply);
}

static void expect_other_version(void)
{
	CHECK(submit() == -1);
	expect_reply("error=" BROLGA_LIBRARY " is of another version than the plugin\n"
		     "hint=ask the administrator to install both from one release\n");
}

static void wrong_abi(void)
{
	install("fake_library_abi.so");
	expect_other_version();
	/* It is not used later either. */
	expect_other_version();
	CHECK(loaded()->submits == 0);
}

static void missing_function(void)
{
	install("fake_library_old.so");
	expect_other_version();
}

static void calls(void)
{
	char *text;

	install("fake_library.so");
	CHECK(submit() == 0);
	CHECK(submit() == 0);
	CHECK(loaded()->submits == 2);
	text = records_text(loaded()->message, loaded()->length);
	CHECK_TEXT(text, "context=submit\nend\n");
	free(text);
}

static void refusal(void)
{
	static const char records[] = "error=pull x: not found\0hint=is the name right?";

	install("fake_library.so");
	CHECK(submit() == 0);
	memcpy(loaded()->reply, records, sizeof(records));
	loaded()->reply_length = sizeof(records);
	loaded()->rc = -1;
	CHECK(submit() == -1);
	expect_reply("error=pull x: not found\nhint=is the name right?\n");
}

static void names_stay_inside(void)
{
	install("fake_library.so");
	CHECK(submit() == 0);
	CHECK(dlsym(RTLD_DEFAULT, "brolga_submit") == NULL);
}

/* A message that lost a part is not sent: it could ask for less than was given. */
static void message_too_large(void)
{
	struct message m = { .failed = true };

	install("fake_library.so");
	CHECK(library_submit(&m, reply, sizeof(reply)) == -1);
	expect_reply("error=options and environment are too large\n");
	CHECK(dlopen(BROLGA_LIBRARY, RTLD_NOW | RTLD_NOLOAD) == NULL);
}

int main(void)
{
	static const struct test tests[] = {
		{ "a missing library is named", missing },
		{ "a file that is no library is named", no_library },
		{ "a library of another ABI is not called", wrong_abi },
		{ "a library without a function is not called", missing_function },
		{ "each call gets its message", calls },
		{ "the library's error and hint arrive", refusal },
		{ "the library's names are not visible to others", names_stay_inside },
		{ "a message that is not whole is not sent", message_too_large },
	};

	return run_tests("library_test", tests, COUNT(tests));
}
