/* SPDX-License-Identifier: Apache-2.0 */
/*
 * helper.h - what the C part of the library takes from its interface.
 */
#ifndef BROLGA_HELPER_H
#define BROLGA_HELPER_H

#include "brolga.h"

int brolga_abi(void);
int brolga_start(brolga_byte *message, size_t length, int socket, char *reply, size_t size);

#endif
