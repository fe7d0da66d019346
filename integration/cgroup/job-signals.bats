#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# proctrack/cgroup signals the process that slurmstepd has started, and no other;
# proctrack/linuxproc all of a step. job-signals.bats has the other cases.

load ../lib/helpers

@test "cgroup: a signal arrives once in the program of a container with a process namespace" {
	as_user rm -f out
	as_user timeout 60 srun --container-image="$BROLGA_TEST_IMAGE" --container-init bash -c \
		'trap "echo got >>out" USR1; trap "echo last >>out; exit 9" TERM; echo ready >out; while :; do sleep 0.1; done' 3>&- &
	retry 20 grep -qsx ready "$user_home/out"
	local step
	step=$(squeue --noheader --steps --user "$BROLGA_TEST_USER" --format=%i | grep '\.0$')
	as_user scancel --signal=USR1 "$step"
	retry 20 grep -qx got "$user_home/out"
	as_user scancel --signal=TERM "$step"
	status=0
	wait $! || status=$?
	((status == 9)) || fail "status $status"
	[[ $(<"$user_home/out") == $'ready\ngot\nlast' ]] || fail "$(<"$user_home/out")"
}
