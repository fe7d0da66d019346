#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# What a job is called, stopped and started by while it is in a container.

load ../lib/helpers
load ../lib/images

in_image=(--container-image="$BROLGA_TEST_IMAGE")

teardown() {
	dump_logs_on_failure
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
}

@test "salloc: its shell, a step of its own, is in the container, and steps of it on request" {
	printf 'echo "in <$BROLGA_IMAGE>"\nexit 3\n' >"$BATS_TEST_TMPDIR/typed"
	run as_user timeout 60 script --quiet --return --command \
		"salloc --quiet --container-image=$BROLGA_TEST_IMAGE" /dev/null <"$BATS_TEST_TMPDIR/typed"
	expect_match 'in <debian>'
	printf 'echo "in <$BROLGA_IMAGE>"\nsrun --container-image=%s sh -c %q\nexit\n' "$BROLGA_TEST_IMAGE" 'echo "step <$BROLGA_IMAGE>"' >"$BATS_TEST_TMPDIR/typed"
	run as_user timeout 60 script --quiet --return --command "salloc --quiet" /dev/null <"$BATS_TEST_TMPDIR/typed"
	expect_match 'in <>'
	expect_match 'step <debian>'
}

@test "salloc: a command of its own runs where it is typed" {
	run_ok as_user salloc --quiet "${in_image[@]}" sh -c 'echo "<$BROLGA_IMAGE>"'
	[[ $output == '<>' ]] || fail "$output"
}

@test "sattach: a running step shows its output and takes input" {
	as_user rm -f go job.out
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/sh
		srun --container-image=$BROLGA_TEST_IMAGE sh -c 'until [ -e go ]; do echo waiting; sleep 0.1; done; echo "attached to \$BROLGA_IMAGE"'
	SCRIPT
	run_ok as_user sbatch --parsable --output=job.out job.sh
	local job=$output
	retry 30 step_runs "$job.0"
	# sattach gives up if the task has not been started yet.
	retry 30 grep -qs waiting "$user_home/job.out"
	as_user timeout 30 sattach "$job.0" >"$BATS_TEST_TMPDIR/attached" 2>&1 </dev/null 3>&- &
	retry 20 grep -q waiting "$BATS_TEST_TMPDIR/attached"
	as_user touch go
	wait "$!"
	output=$(<"$BATS_TEST_TMPDIR/attached")
	expect_line 'attached to debian'
}

step_runs() { squeue --noheader --steps --format=%i | grep -qxF "$1"; }

@test "requeue: a job starts again in its container" {
	as_user rm -f runs
	run_ok as_user sbatch --parsable --requeue "${in_image[@]}" --output=job.out --open-mode=append --wrap \
		'echo "run $SLURM_RESTART_COUNT in $BROLGA_IMAGE"; echo >>runs; [ -n "$SLURM_RESTART_COUNT" ] || sleep 60'
	local job=$output
	retry 20 test -e "$user_home/runs"
	scontrol requeue "$job"
	# Slurm lets it wait for two minutes. Nodes refuse credentials of the second in
	# which the job's were revoked.
	retry 30 job_waits "$job"
	scontrol update "jobid=$job" starttime=now+2
	retry 60 job_ended "$job"
	run_ok as_user cat job.out
	expect_line 'run  in debian'
	expect_line 'run 1 in debian'
	expect_no_leftovers
}

job_waits() { [[ $(squeue --noheader --jobs="$1" --format=%T) == PENDING ]]; }

@test "bcast: the program that srun sends along is run in the container" {
	new_image
	push_image bcast:1
	cp "$(command -v busybox)" "$user_home/program"
	chown "$BROLGA_TEST_USER" "$user_home/program"
	run_ok crun -N2 -n2 --bcast="$user_home/busybox-sent" --container-image="$ref" ./program sh -c 'readlink /proc/$$/exe'
	(($(grep -cx "$user_home/busybox-sent" <<<"$output") == 2)) || fail "$output"
}
