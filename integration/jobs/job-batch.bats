#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Batch scripts and job arrays

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
}

teardown() {
	dump_logs_on_failure
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
}

@test "a batch script asks for its container and runs in it" {
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/bash
		#SBATCH --container-image=$BROLGA_TEST_IMAGE
		#SBATCH --output=job.out
		echo "\$BROLGA_IMAGE|\$1|\$2|\$SLURM_JOB_NAME"
		grep NoNewPrivs /proc/self/status
		id
		[[ -r \$0 ]] && echo script can be read
		exit 4
	SCRIPT
	run batch job.sh one 'two words'
	((status == 4)) || fail "$output"
	run_ok as_user cat job.out
	expect_line 'debian|one|two words|job.sh'
	expect_line "NoNewPrivs:"$'\t'1
	expect_line "$(as_user id)"
	expect_line 'script can be read'
}

@test "a script of another language than the shell's runs with the image's interpreter" {
	as_user tee job.py >/dev/null <<-'SCRIPT'
		#!/usr/bin/env python3
		import os, numpy
		print(os.environ["BROLGA_IMAGE"], numpy.ones(3).sum())
	SCRIPT
	run_ok batch --output=job.out --container-image="$BROLGA_TEST_IMAGE" job.py
	run_ok as_user cat job.out
	[[ $output == "debian 3.0" ]] || fail "$output"
}

@test "steps of one plain batch job run in different images and in none" {
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/bash
		#SBATCH --output=job.out --nodes=2
		srun -N2 -n2 --container-image=$BROLGA_TEST_IMAGE sh -c 'echo \$BROLGA_IMAGE'
		srun -N1 -n1 --container-image=$BROLGA_TEST_SMALL_IMAGE /hello
		srun -N1 -n1 sh -c 'echo "<\$BROLGA_IMAGE>"; grep NoNewPrivs /proc/self/status'
	SCRIPT
	run_ok batch job.sh
	run_ok as_user cat job.out
	[[ $(grep -cx debian <<<"$output") == 2 ]] || fail "$output"
	expect_line 'BROLGA_IMAGE: distroless'
	expect_line '<>'
	expect_line "NoNewPrivs:"$'\t'0
}

@test "all tasks of a job array run in the container" {
	run_ok batch --array=0-1 --output=array.%a.out "${in_image[@]}" \
		--wrap 'echo $BROLGA_IMAGE $SLURM_ARRAY_TASK_ID'
	run_ok as_user cat array.0.out array.1.out
	[[ $output == $'debian 0\ndebian 1' ]] || fail "$output"
}
