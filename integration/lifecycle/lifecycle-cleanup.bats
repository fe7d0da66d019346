#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# However a step ends, nothing of its container remains on the host, and the
# node stays in service.

load ../lib/helpers
load ../lib/lifecycle

cancel_jobs() { as_user scancel --user "$BROLGA_TEST_USER"; }

@test "cleanup: nothing of ours runs while a step does" {
	in_background crun -N2 --ntasks-per-node=2 --container-image="$BROLGA_TEST_IMAGE" bash -c "$until_go"
	tasks_run 4
	retry 5 nothing_of_ours_runs || fail "runs: $(leftovers)"
	[[ -z $(tasks_waiting) ]]
	# Nor does slurmstepd hold a descriptor of the container.
	for pid in $(steps); do
		! find "/proc/$pid/fd" -lname 'mnt:*' -o -lname '/memfd:*' | grep . || fail "slurmstepd $pid holds on"
	done
	go_on
	background_ends
	((status == 0)) || fail "$output"
	expect_clean
}

nothing_of_ours_runs() { ! leftovers | grep -q ^process; }

@test "cleanup: a running step shows nothing in the host's mount table" {
	note_host_mounts
	in_background crun -N2 -n2 --container-image="$BROLGA_TEST_IMAGE" bash -c "$until_go"
	tasks_run 2
	expect_no_new_host_mounts
	[[ -z $(find /sys/fs/cgroup -name '*brolga*') ]]
	go_on
	background_ends
	expect_clean
}

@test "cleanup: after a step that ends by itself" {
	run_ok crun -N4 -n8 --container-image="$BROLGA_TEST_IMAGE" true
	expect_clean
}

@test "cleanup: after a step that fails" {
	run crun -N2 -n4 --container-image="$BROLGA_TEST_IMAGE" bash -c 'exit 3'
	((status == 3))
	expect_clean
}

@test "cleanup: after a command that the image does not have" {
	run_fails crun -N2 -n4 --container-image="$BROLGA_TEST_IMAGE" /nowhere/to/be/found
	expect_clean
}

@test "cleanup: scancel of a running step" {
	in_background crun -N2 -n4 --container-image="$BROLGA_TEST_IMAGE" bash -c "$until_go"
	tasks_run 4
	cancel_jobs
	background_ends
	((status != 0))
	expect_clean
}

@test "cleanup: scancel of a step that ignores SIGTERM" {
	in_background crun -N2 -n2 --container-image="$BROLGA_TEST_IMAGE" bash -c "trap '' TERM INT; $until_go"
	tasks_run 2
	cancel_jobs
	background_ends
	expect_match 'Job step aborted'
	expect_clean
}

@test "cleanup: scancel while nodes wait for a slow registry" {
	ref=$(fresh_image 20)
	slow_registry 5000000
	fast_registry
	at_submission crun --hold -N2 -n4 --container-image="$(through_slow "$ref")" bash -c "$until_go"
	forget_cache
	hold_registry
	release_jobs
	pull_stuck 4000000
	retry 10 tasks_wait 4
	cancel_jobs
	background_ends
	((status != 0))
	[[ ! -e $user_home/started ]]
	expect_clean
}

tasks_wait() { (($(tasks_waiting | wc -l) == $1)); }

@test "cleanup: scancel while an image is converted" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N2 -n4 --container-image="$ref" bash -c "$until_go"
	conversions_stuck
	retry 10 tasks_wait 4
	cancel_jobs
	background_ends
	((status != 0))
	[[ ! -e $user_home/started ]]
	expect_clean
	retry 5 no_drafts || fail "left in the store: $(store_drafts)"
}

@test "cleanup: SIGKILL of one task" {
	in_background crun -N2 -n2 --kill-on-bad-exit=1 --container-image="$BROLGA_TEST_IMAGE" bash -c "$until_go"
	tasks_run 2
	kill -KILL "$(pgrep -u "$BROLGA_TEST_USER" -f 'bash -c echo "\$SLURMD_NODENAME"' --oldest --parent "$(steps | head -n 1)")"
	background_ends
	((status != 0))
	expect_match 'Killed|signal 9'
	expect_clean
}

@test "cleanup: SIGKILL of the helper while it works, with one clear line" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N1 -n4 --container-image="$ref" bash -c "$until_go"
	conversions_stuck
	retry 10 tasks_wait 4
	kill -KILL "$(helpers)"
	background_ends
	((status != 0))
	expect_line 'brolga: error: the helper ended without an answer'
	(($(grep -c 'brolga: error:' <<<"$output") == 1))
	[[ ! -e $user_home/started ]]
	expect_clean
	retry 5 no_drafts || fail "left in the store: $(store_drafts)"
}

@test "cleanup: SIGKILL of the helper while the container's init waits for a command" {
	local dir=$BROLGA_CLUSTER_DIR/etc/hooks.d # the site's
	mkdir "$dir"
	printf '#!/bin/bash\nwhile [[ -d %s ]]; do sleep 0.1; done\n' "$dir" >"$dir/hold"
	chmod 0755 "$dir/hold"
	jq -n --arg path "$dir/hold" '{version: "1.0.0", hook: {path: $path}, when: {always: true}, stages: ["poststart"]}' >"$dir/hold.json"
	in_background crun -N1 -n1 --container-image="$BROLGA_TEST_IMAGE" bash -c "$until_go"
	retry 20 init_waits || fail "no init waits: $(leftovers)"
	kill -KILL "$(helpers)"
	rm -r "$dir"
	background_ends
	((status != 0))
	expect_line 'brolga: error: the helper ended without an answer'
	expect_clean
}

# The init waits at one end of a FIFO until it is told what to execute.
init_waits() {
	local pid
	for pid in $(helpers | xargs --no-run-if-empty pgrep --parent); do
		! grep -qsx wait_for_partner "/proc/$pid/wchan" || return 0
	done
	return 1
}

@test "cleanup: SIGKILL of the helper of one node does not disturb the other's" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N2 -n2 --kill-on-bad-exit=0 --container-image="$ref" bash -c "$until_go"
	conversions_stuck
	retry 10 tasks_wait 2
	kill -KILL "$(helpers | head -n 1)"
	fast_conversions
	tasks_run 1
	go_on
	background_ends
	((status != 0))
	expect_line 'brolga: error: the helper ended without an answer'
	(($(wc -l <"$user_home/started") == 1))
	expect_clean
}

@test "cleanup: SIGKILL of slurmstepd while a step runs" {
	in_background crun -N1 -n2 --container-image="$BROLGA_TEST_IMAGE" bash -c "$until_go"
	tasks_run 2
	kill -KILL "$(steps)"
	cancel_jobs
	background_ends
	expect_match 'Job step aborted'
	kill_orphans
	expect_clean
}

@test "cleanup: SIGKILL of slurmstepd while an image is converted" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N1 -n2 --container-image="$ref" bash -c "$until_go"
	conversions_stuck
	retry 10 tasks_wait 2
	kill -KILL "$(steps)"
	cancel_jobs
	background_ends
	expect_match 'Job step aborted'
	kill_orphans
	[[ ! -e $user_home/started ]]
	expect_clean
	retry 5 no_drafts || fail "left in the store: $(store_drafts)"
}

@test "cleanup: the end of a job's time" {
	in_background as_user srun --time=1 -N2 -n2 --container-image="$BROLGA_TEST_IMAGE" bash -c "$until_go"
	tasks_run 2
	job=$(squeue --noheader --user "$BROLGA_TEST_USER" --format %i)
	scontrol update "JobId=$job" EndTime=now
	background_ends 60
	((status != 0))
	expect_match 'TIME LIMIT|time limit'
	expect_clean
}

@test "cleanup: srun interrupted twice while a step runs" {
	in_background as_user env --default-signal=INT srun -N2 -n2 --container-image="$BROLGA_TEST_IMAGE" bash -c "$until_go"
	tasks_run 2
	interrupt_srun
	background_ends
	((status != 0))
	expect_clean
}

@test "cleanup: srun interrupted twice while an image is converted" {
	ref=$(fresh_image)
	slow_conversions
	in_background as_user env --default-signal=INT srun -N2 -n2 --container-image="$ref" bash -c "$until_go"
	conversions_stuck
	retry 10 tasks_wait 2
	interrupt_srun
	background_ends
	((status != 0))
	[[ ! -e $user_home/started ]]
	expect_clean
	retry 5 no_drafts || fail "left in the store: $(store_drafts)"
}

@test "cleanup: srun interrupted while it pulls" {
	ref=$(fresh_image 20)
	slow_registry 5000000
	in_background as_user env --default-signal=INT srun --container-image="$(through_slow "$ref")" bash -c "$until_go"
	pull_stuck 4000000
	# As a terminal does: to the whole foreground group, here by hand.
	kill -INT "$(our_programs bin/brolga pull)"
	background_ends
	((status != 0))
	expect_match 'brolga: error: .*interrupted'
	[[ -z $(squeue --noheader --user "$BROLGA_TEST_USER") ]]
	expect_clean
}

interrupt_srun() {
	local pid srun
	# The oldest of this cluster's: it has children of the same name.
	for pid in $(pgrep -u "$BROLGA_TEST_USER" -x srun --runstates RSD | sort -rn); do
		! grep -qzxF "SLURM_CONF=$SLURM_CONF" "/proc/$pid/environ" || srun=$pid
	done
	# Two within a second are what it waits for, which a busy machine may not manage.
	until grep -qE 'sending Ctrl-C|forcing job termination' "$BATS_TEST_TMPDIR/background"; do
		kill -INT "$srun" || break
		sleep 0.3
	done
}
