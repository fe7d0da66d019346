/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_library.h"

#include <string.h>

#include "../brolga.h"

#ifndef FAKE_ABI
#define FAKE_ABI BROLGA_ABI
#endif

struct fake_library fake_library;

#ifndef FAKE_WITHOUT_SUBMIT
static int answer(const char *message, size_t length, char *reply, size_t size)
{
	if (length < sizeof(fake_library.message)) {
		memcpy(fake_library.message, message, length);
		fake_library.length = length;
	}
	memset(reply, 0, size);
	memcpy(reply, fake_library.reply, fake_library.reply_length);
	return fake_library.rc;
}
#endif

brolga_abi_f brolga_abi;
int brolga_abi(void)
{
	return FAKE_ABI;
}

#ifndef FAKE_WITHOUT_SUBMIT
brolga_submit_f brolga_submit;
int brolga_submit(brolga_byte *message, size_t length, char *reply, size_t size)
{
	fake_library.submits++;
	return answer(message, length, reply, size);
}

brolga_launch_f brolga_launch;
int brolga_launch(brolga_byte *message, size_t length, char *reply, size_t size)
{
	fake_library.launches++;
	return answer(message, length, reply, size);
}
#endif
