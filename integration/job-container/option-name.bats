#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-name and --container-save where each job has a /tmp of its own.

load ../lib/helpers

# shellcheck disable=SC2016 # for the shell of the allocation
in_job() { run as_user env I="--container-image=$BROLGA_TEST_IMAGE" timeout 60 salloc --quiet -N1 bash -c "$1"; }

@test "job-container: a named container is kept and joined" {
	as_user rm -f started go
	in_job '
		srun $I --container-name=x sh -c "echo kept >/var/tmp/x"
		srun --overlap --container-name=x bash -c "echo >started; while [[ ! -e go ]]; do sleep 0.1; done" &
		while [[ ! -e started ]]; do sleep 0.1; done
		srun --overlap --container-name=x:exec cat /var/tmp/x
		touch go; wait'
	((status == 0)) || fail "$output"
	expect_line kept
	expect_no_leftovers 20
}

@test "job-container: the job's own directory gets the saved container" {
	in_job '
		srun $I --container-save=/tmp/x.sqsh touch /var/tmp/x
		srun ls /tmp/x.sqsh'
	((status == 0)) || fail "$output"
	expect_line /tmp/x.sqsh
	[[ ! -e /tmp/x.sqsh ]]
}
