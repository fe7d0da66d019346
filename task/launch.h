/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch.h - what the shim leaves for the launcher, which Slurm executes next.
 */
#ifndef BROLGA_LAUNCH_H
#define BROLGA_LAUNCH_H

/*
 * The variable has "PLAN,SOCKET,STEPD:COMMAND": the numbers of the descriptors of
 * the plan and of the tasks' socket (or -1), the name of slurmstepd's process, and
 * the command whose place the launcher has in the arguments. Without COMMAND the
 * arguments after the launcher's name are the whole command.
 */
#define LAUNCH_VARIABLE "BROLGA_LAUNCH"
#define LAUNCH_COMMAND_MAX 4200 /* longer than any path */

#endif
