#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-save where Slurm kills a step by its cgroup.

load ../lib/helpers
load ../lib/images

saved() { ls -A "$user_home/saved"; }
nothing_saved() { [[ -z $(saved) ]]; }
writes() { pgrep -u "$BROLGA_TEST_USER" -f '^sleep 60.4712' >/dev/null; }

@test "cgroup: what saves a container is the step's, and leaves nothing when that is killed" {
	as_user rm -rf saved
	as_user mkdir saved
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" true
	printf '#!/bin/bash\necho begun >"${!#}"\nexec sleep 60.4712\n' | as_user tee tar2sqfs >/dev/null
	chmod 0755 "$user_home/tar2sqfs"
	chmod o+x "$user_home"
	site_config "tar2sqfs = \"$user_home/tar2sqfs\""
	as_user srun --container-image="$BROLGA_TEST_IMAGE" --container-save=saved/x.sqsh true 3>&- &
	retry 30 writes || fail "nothing is written"
	writer=$(pgrep -u "$BROLGA_TEST_USER" -f '^sleep 60.4712')
	job=$(squeue --noheader --user="$BROLGA_TEST_USER" --format=%A)
	grep -q "job_$job/step_0" "/proc/$writer/cgroup" || fail "$(cat "/proc/$writer/cgroup")"
	as_user scancel "$job"
	wait "$!" || true
	retry 10 nothing_saved || fail "$(saved)"
	retry 5 not_running "$writer" || fail "still runs"
	expect_no_leftovers 20
	nodes_idle
}

not_running() { [[ ! -e /proc/$1 ]]; }
