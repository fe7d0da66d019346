#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# What the tasks and steps of a node share, and what they do not. All nodes are
# on one machine here, with one kernel and one set of loop devices.

load ../lib/helpers
load ../lib/lifecycle

# loops REF: number of loop devices that the image is attached to.
loops() { cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -cF "$(store_file "$1")"; }

@test "node: the tasks of a node share one mount namespace, apart from all others" {
	# All at once: the kernel uses the number of a namespace that is gone again.
	in_background crun -N4 --ntasks-per-node=4 --container-image="$BROLGA_TEST_IMAGE" \
		bash -c 'echo "$SLURMD_NODENAME $(readlink /proc/self/ns/mnt)"; '"$until_go"
	tasks_run 16
	go_on
	background_ends
	((status == 0)) || fail "$output"
	(($(wc -l <<<"$output") == 16))
	sort <<<"$output" | uniq -c >"$BATS_TEST_TMPDIR/count"
	(($(awk '$1 == 4' "$BATS_TEST_TMPDIR/count" | wc -l) == 4))
	(($(awk '{print $2}' "$BATS_TEST_TMPDIR/count" | sort -u | wc -l) == 4))
	(($(awk '{print $3}' "$BATS_TEST_TMPDIR/count" | sort -u | wc -l) == 4))
	refute_match "$(readlink /proc/self/ns/mnt | tr '[]' '..')"
	expect_clean
}

@test "node: the other namespaces of a task are the host's" {
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" \
		bash -c 'for ns in pid net ipc uts user cgroup; do readlink /proc/self/ns/$ns; done'
	for ns in pid net ipc uts user cgroup; do
		expect_line "$(readlink "/proc/self/ns/$ns")"
	done
}

@test "node: all tasks of a step on all nodes use one loop device" {
	ref=$(fresh_image)
	in_background crun -N4 --ntasks-per-node=4 --container-image="$ref" bash -c "$until_go"
	tasks_run 16
	(($(loops "$ref") == 1))
	go_on
	background_ends
	((status == 0)) || fail "$output"
	expect_clean
}

@test "node: a second step of the same image uses the loop device of the first" {
	ref=$(fresh_image)
	in_background crun -N2 -n2 --container-image="$ref" bash -c "$until_go"
	tasks_run 2
	before=$(attached "$ref")
	run_ok crun -N2 -n4 --container-image="$ref" bash -c 'echo again >>started; sleep 0.2; cat /stamp'
	[[ $(attached "$ref") == "$before" ]]
	(($(loops "$ref") == 1))
	go_on
	background_ends
	((status == 0)) || fail "$output"
	expect_clean
}

# attached REF: names of devices and the time of their attachment.
attached() {
	local file want
	want=$(store_file "$1")
	for file in /sys/block/loop*/loop; do
		[[ $(cat "$file/backing_file" 2>/dev/null) != "$want" ]] || stat -c '%n %z' "$file"
	done
}

@test "node: steps that start together never fail nor attach the image twice" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	for round in {1..10}; do
		for step in 1 2; do
			crun -n1 --container-image="$ref" bash -c 'cat /sys/block/loop*/loop/backing_file; exit 7' \
				>"$BATS_TEST_TMPDIR/step.$step" 2>&1 3>&- &
			pid[step]=$!
		done
		for step in 1 2; do
			code=0
			wait "${pid[step]}" || code=$?
			((code == 7)) || fail "round $round: $(cat "$BATS_TEST_TMPDIR/step.$step")"
			(($(grep -cF "$(basename "$(store_file "$ref")")" "$BATS_TEST_TMPDIR/step.$step") == 1)) ||
				fail "round $round: $(cat "$BATS_TEST_TMPDIR/step.$step")"
		done
	done
	expect_clean
}

@test "node: what a task writes, the others of its node see, and no one later" {
	ref=$(fresh_image)
	run_ok crun -N2 --ntasks-per-node=2 --container-image="$ref" bash -c '
		echo "written by $SLURM_LOCALID on $SLURMD_NODENAME" >/tmp/from.$SLURM_LOCALID
		until [[ -s /tmp/from.0 && -s /tmp/from.1 ]]; do sleep 0.05; done
		cat /tmp/from.*'
	(($(grep -c written <<<"$output") == 8))
	for task in 0 1; do
		for node in n1 n2; do
			(($(grep -cx "written by $task on $node" <<<"$output") == 2))
		done
	done
	[[ ! -e /tmp/from.0 ]]
	run_ok crun -N2 -n2 --container-image="$ref" ls /tmp
	refute_match 'from'
}

@test "node: 64 tasks run in one container" {
	run_ok crun -N1 -n64 --container-image="$BROLGA_TEST_IMAGE" \
		bash -c 'echo "$SLURM_LOCALID $(readlink /proc/self/ns/mnt)"'
	((${#lines[@]} == 64))
	(($(awk '{print $1}' <<<"$output" | sort -u | wc -l) == 64))
	(($(awk '{print $2}' <<<"$output" | sort -u | wc -l) == 1))
	expect_clean
}

@test "node: steps of one job run side by side in containers of their own" {
	ref=$(fresh_image)
	cat >"$user_home/steps.sh" <<-SCRIPT
		#!/bin/bash
		for step in 1 2 3 4; do
			srun --exact -n1 --container-image=$ref bash -c "echo \$step >/tmp/step; sleep 0.3; echo \$step \\\$(cat /tmp/step) \\\$(ls /tmp)" &
		done
		wait
	SCRIPT
	run_ok as_user sbatch --wait -n4 -o steps.out steps.sh
	run_ok as_user cat steps.out
	(($(grep -c ' step$' <<<"$output") == 4))
	for step in 1 2 3 4; do
		expect_line "$step $step step"
	done
	expect_clean
}

@test "node: touching a page of the image reads one of its blocks, whatever the storage prefers" {
	# shellcheck disable=SC2016 # the container's shell expands it
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" sh -c '
		for device in /sys/block/loop*/loop; do
			case $(cat "$device/backing_file") in
			'"$BROLGA_CLUSTER_DIR"'/*) cat "${device%/loop}/queue/read_ahead_kb" ;;
			esac
		done'
	[[ $output == 128 ]] || fail "$output"
}
