/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.c - NUL-terminated key=value records (PROTOCOL.md).
 */
#include "task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Linux executes no program with more than 6 MiB of arguments and environment. */
#define MESSAGE_MAX (8u << 20)

static bool message_reserve(struct message *m, size_t more)
{
	size_t size = m->size ? m->size : 4096;
	char *data;

	if (m->failed || more > MESSAGE_MAX || m->length + more > MESSAGE_MAX) {
		m->failed = true;
		return false;
	}
	while (size < m->length + more)
		size *= 2;
	if (size == m->size)
		return true;
	data = realloc(m->data, size);
	if (!data) {
		m->failed = true;
		return false;
	}
	m->data = data;
	m->size = size;
	return true;
}

void message_add(struct message *m, const char *key, const char *value)
{
	size_t key_length = strlen(key);
	size_t value_length = strlen(value);

	if (!message_reserve(m, key_length + 1 + value_length + 1))
		return;
	memcpy(m->data + m->length, key, key_length);
	m->length += key_length;
	m->data[m->length++] = '=';
	memcpy(m->data + m->length, value, value_length + 1);
	m->length += value_length + 1;
}

void message_add_number(struct message *m, const char *key, unsigned long value)
{
	char text[24];

	snprintf(text, sizeof(text), "%lu", value);
	message_add(m, key, text);
}

void message_free(struct message *m)
{
	free(m->data);
	memset(m, 0, sizeof(*m));
}

const char *record_next(const char **at, const char *end, const char **key, size_t *key_length)
{
	const char *nul = *at < end ? memchr(*at, '\0', (size_t)(end - *at)) : NULL;
	const char *equals;

	if (!nul)
		return NULL;
	equals = memchr(*at, '=', (size_t)(nul - *at));
	if (!equals || equals == *at)
		return NULL;
	*key = *at;
	*key_length = (size_t)(equals - *at);
	*at = nul + 1;
	return equals + 1;
}

bool record_is(const char *key, size_t key_length, const char *name)
{
	return strlen(name) == key_length && memcmp(key, name, key_length) == 0;
}

const char *record_find(const char *records, size_t size, const char *name)
{
	const char *at = records, *key, *value;
	size_t length;

	while ((value = record_next(&at, records + size, &key, &length)))
		if (record_is(key, length, name))
			return value;
	return NULL;
}
