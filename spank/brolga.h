/* SPDX-License-Identifier: Apache-2.0 */
/*
 * brolga.h - the interface of libbrolga.so.
 *
 * The library is written in Go and is opened with dlopen(3) by the SPANK shim in
 * srun, sbatch and salloc. Its rules:
 *
 *  - Never call it in a forked child that has not called execve(2): Go's threads
 *    do not exist there and the call would hang.
 *  - Calls are short, leave no work running, change no credentials, namespaces,
 *    signal masks or working directory of the process, and keep no pointer they
 *    were given. They are not reentrant: one call at a time.
 *  - No panic crosses the boundary; it becomes the error "internal error: ...".
 *
 * Messages are NUL-terminated key=value records; spank/PROTOCOL.md lists them.
 * Each call writes its answer, always whole records, to reply (size bytes, at
 * least BROLGA_REPLY_MIN), the rest of which it fills with NUL. It returns 0 on
 * success, and -1 after writing the record "error" and, where the remedy is
 * known, "hint"; or "reported" when the user has been told already.
 */
#ifndef BROLGA_H
#define BROLGA_H

#include <stddef.h>

/*
 * Changes whenever a signature or the meaning of a record does. The helper is
 * told the number too and refuses another one.
 */
#define BROLGA_ABI 2

#define BROLGA_REPLY_MIN 4096

/* "const char", under a name that cgo can spell. */
typedef const char brolga_byte;

/* Returns BROLGA_ABI of the library. */
typedef int brolga_abi_f(void);

/*
 * Checks what the user asked for before anything is submitted, resolves the
 * image and pulls it if the user's cache lacks it. Identity: the user. May take
 * as long as the pull, with its progress on standard error. Answers with "env"
 * records, variables to set in the calling process.
 */
typedef int brolga_submit_f(brolga_byte *message, size_t length, char *reply, size_t size);

/*
 * Says where the nodes of the step are, once srun knows, and only if brolga_submit
 * answered with "peers". Identity: the user. Answers with "env" records as well.
 */
typedef int brolga_launch_f(brolga_byte *message, size_t length, char *reply, size_t size);

#endif
