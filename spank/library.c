/* SPDX-License-Identifier: Apache-2.0 */
/*
 * library.c - loads libbrolga.so, and only when a container was asked for.
 *
 * Slurm runs init() and fini() of any library a plugin is linked with, and
 * unloads plugins; a Go library bears neither. So it is opened here, by
 * absolute path, without its names being visible to others, and never closed.
 */
#include "shim.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "brolga.h"

#ifndef BROLGA_LIBRARY
#error "define BROLGA_LIBRARY, the absolute path of libbrolga.so"
#endif

static struct {
	void *handle;
	brolga_submit_f *submit;
	brolga_launch_f *launch;
} library;

/* Writes the records error=text and, where there is one, hint=hint. */
static int answer_error(char *reply, size_t size, const char *text, const char *hint)
{
	int n;

	memset(reply, 0, size);
	n = snprintf(reply, size, "error=%.2000s", text);
	if (hint)
		snprintf(reply + n + 1, size - (size_t)n - 1, "hint=%.2000s", hint);
	return -1;
}

static int library_load(char *reply, size_t size)
{
	brolga_abi_f *abi;

	if (library.handle)
		return 0;
	library.handle = dlopen(BROLGA_LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!library.handle)
		return answer_error(reply, size, dlerror(),
				    "ask the administrator to reinstall Brolga");
	/* ISO C has no conversion from an object to a function pointer, POSIX has. */
	*(void **)&abi = dlsym(library.handle, "brolga_abi");
	*(void **)&library.submit = dlsym(library.handle, "brolga_submit");
	*(void **)&library.launch = dlsym(library.handle, "brolga_launch");
	if (abi && library.submit && library.launch && abi() == BROLGA_ABI)
		return 0;
	library.handle = NULL;
	return answer_error(reply, size, BROLGA_LIBRARY " is of another version than the plugin",
			    "ask the administrator to install both from one release");
}

static int library_ready(const struct message *m, char *reply, size_t size)
{
	if (m->failed)
		return answer_error(reply, size, "options and environment are too large", NULL);
	return library_load(reply, size);
}

int library_submit(const struct message *m, char *reply, size_t size)
{
	if (library_ready(m, reply, size) < 0)
		return -1;
	return library.submit(m->data, m->length, reply, size);
}

int library_launch(const struct message *m, char *reply, size_t size)
{
	if (library_ready(m, reply, size) < 0)
		return -1;
	return library.launch(m->data, m->length, reply, size);
}
