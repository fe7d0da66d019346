#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Plain Slurm with proctrack/cgroup and task/cgroup: is it really in use?

load ../lib/helpers

@test "srun: a task is in the cgroup of its step" {
	run_ok crun -N2 -n2 cat /proc/self/cgroup
	expect_match '/slurm_n1/uid_[0-9]+/job_[0-9]+/step_0'
	expect_match '/slurm_n2/uid_[0-9]+/job_[0-9]+/step_0'
	nodes_idle
}
