#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# The extern step stands for the job on a node and runs nothing of the user's.

load ../lib/helpers

@test "extern step: it stays on the host while its job runs in a container" {
	as_user rm -f started
	run_ok as_user sbatch --parsable --container-image="$BROLGA_TEST_IMAGE" --output=job.out --wrap 'touch started; sleep 30'
	local job=$output pid
	retry 30 test -e "$user_home/started"
	pid=$(pgrep --exact --full "slurmstepd: \[$job.extern\]")
	[[ -n $pid ]] || fail "no extern step"
	run cat "/proc/$pid/mountinfo"
	refute_match ' squashfs '
	# Its only child waits for the end of the job.
	pid=$(pgrep --parent "$pid" sleep)
	run cat "/proc/$pid/mountinfo"
	refute_match ' squashfs '
	scancel "$job"
	nodes_idle
}
