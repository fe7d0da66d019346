/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_helper.h - where the fake helper of a test program notes what.
 * BROLGA_HELPER is a link that each test points at it, or somewhere else.
 */
#ifndef BROLGA_TEST_FAKE_HELPER_H
#define BROLGA_TEST_FAKE_HELPER_H

#ifndef HELPER_NOTES
#error "define HELPER_NOTES, the beginning of the paths of the notes"
#endif

#define HELPER_START HELPER_NOTES ".start" /* lines: pid, argument, fd, env */
#define HELPER_MESSAGE HELPER_NOTES ".message" /* its standard input, whole */
#define HELPER_ENDED HELPER_NOTES ".ended" /* nobody holds the tasks' end */

/* The image for which it leaves a note for the end of the step. */
#define LEAVES_A_NOTE "image-that-leaves-a-note"

#endif
