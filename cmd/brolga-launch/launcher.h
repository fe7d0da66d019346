/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launcher.h - what the files of the launcher share.
 */
#ifndef BROLGA_LAUNCHER_H
#define BROLGA_LAUNCHER_H

#include "../../task/task.h"

/* ---- command.c: the command ---- */

__attribute__((noreturn)) void give_up(const char *what, const char *object);
void complain(const char *text, const char *hint);
struct plan open_plan(int fd);
char **make_arguments(struct plan plan, char *command, int argc, char **argv);
__attribute__((noreturn)) void end_as(int status);

/* ---- run.c: a container without Slurm ---- */

/*
 * Arguments of "brolga-launch run": the path of the helper, the descriptors of the
 * helper's message and of the image, letters that say what kind of container it
 * is, and the command, if the image's entrypoint is not all of it.
 */
enum { RUN_HELPER = 2, RUN_MESSAGE, RUN_IMAGE, RUN_KIND, RUN_COMMAND };

/* The letters. */
#define RUN_AS_USER 'u' /* in a user namespace: the caller is not root */
#define RUN_ROOT 'r' /* the command is root there */

__attribute__((noreturn)) void run_container(char **argv);

/* ---- keeper.c: the end of a container ---- */

void keeper_start(int namespace);

/* "brolga-launch keep" */
__attribute__((noreturn)) void keeper_run(char **argv);

/* ---- confine.c: a program in a sandbox ---- */

/*
 * Arguments of "brolga-launch confine": the descriptor of the rules of Landlock or -1,
 * the filter as a plan has it (PROTOCOL.md) or "-", the program, and its arguments from
 * its name on.
 */
enum { CONFINE_RULES = 2, CONFINE_FILTER, CONFINE_PROGRAM, CONFINE_NAME };

__attribute__((noreturn)) void confine(char **argv);

#endif
