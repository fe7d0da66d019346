/* SPDX-License-Identifier: Apache-2.0 */
/*
 * renumber.c - changes numbers in a list, such as that of CUDA_VISIBLE_DEVICES.
 *
 * Each task has a list of its own, so the helper cannot write it: it says which
 * number becomes which. Runs where join.c does, under the same rules.
 */
#include "shim.h"

#include <string.h>

#define DIGITS "0123456789"

/* Finds "NUMBER:" in a map and returns what follows, or NULL. */
static const char *map_find(const char *map, const char *number, size_t length)
{
	while (*map) {
		if (strspn(map, DIGITS) == length && strncmp(map, number, length) == 0 &&
		    map[length] == ':')
			return map + length + 1;
		map += strcspn(map, ",");
		map += *map == ',';
	}
	return NULL;
}

static bool append(char **at, const char *end, const char *text, size_t length)
{
	if ((size_t)(end - *at) <= length)
		return false;
	memcpy(*at, text, length);
	*at += length;
	return true;
}

/*
 * Writes list to out with the numbers at the start of its elements changed as map
 * says, "OLD:NEW,OLD:NEW". An element whose number the map lacks is left out; one
 * that does not start with a number stays. Returns -1 if there is no room.
 */
int renumber(char *out, size_t size, const char *list, const char *map)
{
	char *at = out;
	const char *end = out + size;

	for (;;) {
		size_t length = strcspn(list, ","), digits = strspn(list, DIGITS);
		const char *fresh = digits ? map_find(map, list, digits) : list;
		size_t fresh_length = fresh && digits ? strspn(fresh, DIGITS) : 0;

		if (fresh && length) {
			if (at > out && !append(&at, end, ",", 1))
				return -1;
			if (!append(&at, end, fresh, fresh_length) ||
			    !append(&at, end, list + digits, length - digits))
				return -1;
		}
		if (list[length] == '\0')
			break;
		list += length + 1;
	}
	*at = '\0';
	return 0;
}
