#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --[no-]container-inherit: whether steps of a batch script in a container run in
# one, too. Such a script needs srun, so it gets the host's programs here.

load ../lib/helpers
load ../lib/images

host=/usr,$BROLGA_CLUSTER_DIR

# job ARGUMENT...: the output of a batch script that starts steps.
job() {
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/sh
		echo "script <\$BROLGA_IMAGE>"
		srun sh -c '[ -d /opt/work ] && echo "step in debian" || echo "step on the host"'
		srun --container-image=$BROLGA_TEST_SMALL_IMAGE /hello
	SCRIPT
	run batch --output=job.out --container-mounts="$host" "$@" job.sh
	run_ok as_user cat job.out
	expect_line 'BROLGA_IMAGE: distroless'
}

in_image=(--container-image="$BROLGA_TEST_IMAGE")

@test "inherit: steps of a batch script are in its container" {
	job "${in_image[@]}"
	expect_line 'script <debian>'
	expect_line 'step in debian'
}

@test "inherit: without it they are on the host, unless they ask" {
	job "${in_image[@]}" --no-container-inherit
	expect_line 'script <debian>'
	expect_line 'step on the host'
}

@test "inherit: variables do the same, and the option wins" {
	given "BROLGA_CONTAINER_IMAGE=$BROLGA_TEST_IMAGE" BROLGA_CONTAINER_INHERIT=0
	job
	expect_line 'script <debian>'
	expect_line 'step on the host'
	job --container-inherit
	expect_line 'step in debian'
}

@test "inherit: the site decides for those who do not say" {
	site_config $'[container]\ninherit = false'
	job "${in_image[@]}"
	expect_line 'step on the host'
	job "${in_image[@]}" --container-inherit
	expect_line 'step in debian'
}

@test "inherit: contradictions are refused before anything is submitted" {
	refused '--no-container-inherit contradicts --container-inherit: give one of them' \
		"${in_image[@]}" --container-inherit --no-container-inherit
}
