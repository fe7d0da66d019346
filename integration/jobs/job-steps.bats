#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Jobs with several steps, or several parts, at a time.

load ../lib/helpers
load ../lib/images

in_image=(--container-image="$BROLGA_TEST_IMAGE")

@test "heterogeneous job: each part runs in the container, from srun and in an allocation" {
	run_ok crun -N1 -n1 "${in_image[@]}" sh -c 'echo "a $BROLGA_IMAGE $SLURMD_NODENAME"' : \
		-N2 -n2 "${in_image[@]}" sh -c 'echo "b $BROLGA_IMAGE $SLURMD_NODENAME"'
	(($(grep -c '^a debian n' <<<"$output") == 1 && $(grep -c '^b debian n' <<<"$output") == 2)) || fail "$output"
	run_ok as_user salloc --quiet -N1 : -N1 srun --het-group=0,1 "${in_image[@]}" \
		sh -c 'echo "$BROLGA_IMAGE $SLURMD_NODENAME"'
	(($(grep -c '^debian n' <<<"$output") == 2 && $(sort -u <<<"$output" | wc -l) == 2)) || fail "$output"
}

@test "heterogeneous job: a batch script runs in the container, and so do steps of its parts" {
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/sh
		#SBATCH --output=job.out
		#SBATCH -N1
		#SBATCH hetjob
		#SBATCH -N1
		srun --het-group=0,1 --container-image=$BROLGA_TEST_IMAGE sh -c 'echo "\$BROLGA_IMAGE \$SLURMD_NODENAME"'
	SCRIPT
	run_ok batch job.sh
	run_ok as_user cat job.out
	(($(grep -c '^debian n' <<<"$output") == 2)) || fail "$output"
	run_ok batch "${in_image[@]}" --output=job.out -N1 : -N1 --wrap 'echo "<$BROLGA_IMAGE>"'
	run_ok as_user cat job.out
	[[ $output == '<debian>' ]] || fail "$output"
}

@test "overlap: a second step looks into a busy job from a container of its own" {
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/sh
		srun --overlap --container-image=$BROLGA_TEST_IMAGE sh -c 'touch /tmp/only-here started; until [ -e go ]; do sleep 0.1; done; cat /tmp/only-here' &
		until [ -e started ]; do sleep 0.1; done
		srun --overlap --container-image=$BROLGA_TEST_IMAGE sh -c 'ls /tmp/only-here; echo "\$BROLGA_IMAGE"'
		touch go
		wait %1 && echo first ended
	SCRIPT
	as_user rm -f started go
	run_ok as_user salloc --quiet -n1 timeout 60 sh job.sh
	expect_line debian
	expect_line 'first ended'
	expect_match "cannot access '/tmp/only-here'"
}

@test "jobid: a step joins a running job from outside" {
	run_ok as_user sbatch --parsable --output=/dev/null --wrap 'sleep 60'
	local job=$output
	retry 20 job_runs "$job"
	run_ok crun --overlap --jobid="$job" "${in_image[@]}" sh -c 'echo "$BROLGA_IMAGE $SLURM_JOB_ID"'
	expect_line "debian $job"
	scancel "$job"
}

job_runs() { [[ $(squeue --noheader --jobs="$1" --format=%T) == RUNNING ]]; }

@test "exclusive: steps of one job take turns in their containers" {
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/sh
		for i in 1 2 3; do
			srun --exclusive -N1 -n1 --container-image=$BROLGA_TEST_IMAGE sh -c "echo step-\$i-\\\$BROLGA_IMAGE" &
		done
		wait
	SCRIPT
	run_ok as_user salloc --quiet -n2 timeout 60 sh job.sh
	for i in 1 2 3; do expect_line "step-$i-debian"; done
}
