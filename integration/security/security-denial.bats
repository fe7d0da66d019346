#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Nobody else's step, node or clean-up waits for a user who stops or floods.

load ../lib/helpers
load ../lib/lifecycle

other=$BROLGA_TEST_USER-other

setup_file() { useradd --create-home --shell /bin/bash "$other"; }

teardown_file() { userdel --remove "$other" 2>/dev/null; }

# as_other FUNCTION...: as_user or crun, as another user.
as_other() {
	local user_home
	# shellcheck disable=SC2034 # for as_user
	user_home=$(getent passwd "$other" | cut -d: -f6)
	BROLGA_TEST_USER=$other "$@"
}

other_runs() {
	run_ok as_other crun -w n1 --container-image="$1" cat /stamp
	expect_match '^life/'
}

jobs_there() { [[ -n $(squeue --noheader --user "$BROLGA_TEST_USER") ]]; }

all_ends() {
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	expect_clean
}

@test "denial: a job that is suspended while it waits for a conversion delays no other user" {
	local ref job
	ref=$(fresh_image)
	slow_conversions
	in_background crun -w n1 --container-image="$ref" cat /stamp
	conversions_stuck
	job=$(squeue --noheader --user "$BROLGA_TEST_USER" --format %A)
	run_ok scontrol suspend "$job"
	fast_conversions
	other_runs "$ref"
	run_ok scontrol resume "$job"
	background_ends
	((status == 0)) || fail "$output"
	all_ends
}

@test "denial: a user who stops the own srun, and all that waits, delays no other user" {
	local ref mine
	ref=$(fresh_image)
	slow_conversions
	in_background crun -w n1 --container-image="$ref" cat /stamp
	conversions_stuck
	# Tasks before their join are the user's as far as signals go.
	mine=$(pgrep -u "$BROLGA_TEST_USER")
	for pid in $mine; do as_user kill -STOP "$pid" || true; done
	fast_conversions
	other_runs "$ref"
	all_ends
	pkill -CONT -u "$BROLGA_TEST_USER" || true
}

@test "denial: sixty steps of one user at once leave room for another's" {
	local ref
	ref=$(fresh_image)
	run_ok crun -w n1 --container-image="$ref" cat /stamp
	# shellcheck disable=SC2016 # the user's shell expands it
	in_background as_user bash -c 'for i in {1..60}; do srun --time=5 -w n1 --container-image="$0" cat /stamp & done; wait' "$ref"
	retry 30 jobs_there
	other_runs "$ref"
	background_ends 120
	[[ $(grep -c '^life/' <<<"$output") == 60 ]] || fail "$output"
	all_ends
}

# locked: the files of the cluster that some process has locked (proc_locks(5)).
locked() {
	local inode
	awk '$2 == "FLOCK" {split($6, part, ":"); print part[3]}' /proc/locks | sort -u | while read -r inode; do
		find "$BROLGA_CLUSTER_DIR" -xdev -inum "$inode" ! -path '*/etc/*' ! -path '*/log/*' ! -path '*/munge/*' 2>/dev/null
	done
}

@test "denial: no user can take a lock that others wait for" {
	local ref file number=0
	ref=$(fresh_image)
	slow_conversions
	in_background crun -w n1 --container-name=held --container-image="$ref" cat /stamp
	conversions_stuck
	# Both turns of the conversion, and the name of the container.
	for file in $(locked); do
		run as_other as_user flock --nonblock "$file" true
		((status != 0)) || fail "$file can be locked"
		expect_match 'Permission denied'
		run as_user flock --nonblock "$file" true
		((status != 0)) || fail "$file can be locked"
		expect_match 'Permission denied'
		number=$((number + 1))
	done
	((number >= 2)) || fail "found only: $(locked)"
	fast_conversions
	background_ends
	((status == 0)) || fail "$output"
	all_ends
}

@test "denial: users can write nothing below the directories of root and of the store" {
	local dir
	run_ok crun -w n1 --container-name=mine --container-image="$BROLGA_TEST_IMAGE" true
	for dir in run store; do
		run as_user find "$BROLGA_CLUSTER_DIR/$dir" -writable ! -type l
		refute_match "^$BROLGA_CLUSTER_DIR"
	done
	all_ends
}

@test "denial: thirty images of one user at once leave loop devices for another's" {
	local ref refs=() i
	for ((i = 0; i < 30; i++)); do refs+=("$(fresh_image)"); done
	ref=$(fresh_image)
	run_ok as_user brolga pull --quiet --config "$BROLGA_CONFIG" "$ref"
	# shellcheck disable=SC2016 # the user's shell expands it
	in_background as_user bash -c 'for i in "$@"; do srun --time=5 --overlap -w n1 --container-image="$i" bash -c "cat /stamp; echo >>started; while [[ ! -e go ]]; do sleep 0.2; done" & done; wait' bash "${refs[@]}"
	retry 120 has_lines "$user_home/started" 30 || fail "$(cat "$BATS_TEST_TMPDIR/background")"
	(($(cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -cF "$BROLGA_CLUSTER_DIR/store") >= 30))
	other_runs "$ref"
	go_on
	background_ends 120
	((status == 0)) || fail "$output"
	all_ends
}
