#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Plain Slurm with job_container/tmpfs: does a job really have its own /tmp?

load ../lib/helpers

@test "srun: a job sees a /tmp of its own, which goes with it" {
	touch "/tmp/host-file.$$"
	run_ok crun bash -c 'touch /tmp/job-file; ls /tmp'
	rm "/tmp/host-file.$$"
	expect_line job-file
	refute_match host-file
	[[ ! -e /tmp/job-file ]]
	nodes_idle
}
