#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A user who wants many new images, or large ones, keeps nobody else waiting: conversions
# of a node and of a user are counted, and so is what a user has in the store.

load ../lib/helpers
load ../lib/lifecycle

others=("$BROLGA_TEST_USER"-b "$BROLGA_TEST_USER"-c)

setup_file() {
	local user
	for user in "${others[@]}"; do
		useradd --create-home --shell /bin/bash "$user"
	done
}

teardown_file() {
	local user
	for user in "${others[@]}"; do
		userdel --remove "$user" 2>/dev/null || true
	done
}

teardown() {
	local pid user
	dump_logs_on_failure
	fast_conversions
	for pid in "${step_pids[@]}" ${background:+"$background"}; do
		kill "$pid" 2>/dev/null || true
	done
	for user in "$BROLGA_TEST_USER" "${others[@]}"; do
		scancel --quiet --user "$user"
	done
	put "$tools/brolga.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	rm -rf "$tools"
	! mountpoint -q "$BROLGA_CLUSTER_DIR/small" || retry 30 umount "$BROLGA_CLUSTER_DIR/small"
	rm -rf "$BROLGA_CLUSTER_DIR/small"
}

step_pids=()

# step USER REF [OPTION]...: the user starts a step on n1, in the background.
step() {
	local user=$1 ref=$2
	shift 2
	steps_begun=$((${steps_begun:-0} + 1))
	in_home_of "$user" crun -w n1 --container-image="$ref" "$@" cat /stamp \
		>"$BATS_TEST_TMPDIR/step.$steps_begun" 2>&1 3>&- 4>&- &
	step_pids+=("$!")
}

# in_home_of USER FUNCTION...: as_user or crun, as that user.
in_home_of() {
	local user_home # for as_user
	# shellcheck disable=SC2034
	user_home=$(getent passwd "$1" | cut -d: -f6)
	BROLGA_TEST_USER=$1 "${@:2}"
}

# steps_end: all steps that were begun have ended well.
steps_end() {
	local pid i=0
	for pid in "${step_pids[@]}"; do
		i=$((i + 1))
		retry 60 not_alive "$pid" || fail "step $i still runs: $(<"$BATS_TEST_TMPDIR/step.$i")"
		wait "$pid" || fail "step $i failed: $(<"$BATS_TEST_TMPDIR/step.$i")"
	done
	step_pids=()
}

# held_conversions: as slow_conversions, but one whose image has been let go ends.
held_conversions() {
	slow_conversions
	cat >"$tools/tar2sqfs" <<-SCRIPT
		#!/bin/bash
		out=\${!#} digest=\${!#}
		digest=\${digest##*/.tmp-}
		echo "\${digest%%-*}" >>$tools/log
		while [[ -e $tools/slow && ! -e $tools/go-\${digest%%-*} ]]; do sleep 0.05; done
		exec /usr/bin/tar2sqfs "\$@"
	SCRIPT
}

let_go() { touch "$tools/go-$(basename "$(store_file "$1")" .squashfs)"; }

converters() { our_programs bin/brolga convert; }

# helpers_are N: so many steps wait, or are converting, on the node.
helpers_are() { (($(helpers | wc -l) == $1)); }

is_converting() { grep -qxF "$(basename "$(store_file "$1")" .squashfs)" "$tools/log" 2>/dev/null; }

# watch_converters: writes how many there are, again and again, into $seen.
watch_converters() {
	seen=$BATS_TEST_TMPDIR/seen
	: >"$seen"
	while [[ -e $seen ]]; do
		pgrep -fc "^$BROLGA_CLUSTER_DIR/prefix/bin/brolga convert" >>"$seen.all" || true
		sleep 0.05
	done 3>&- 4>&- &
}

most_converters() {
	rm -f "$seen"
	sort -n "$seen.all" | tail -n 1
}

@test "convert: ten steps of three users never have more conversions than the site allows" {
	refs=()
	for i in {1..10}; do
		refs+=("$(fresh_image)")
	done
	held_conversions
	sed -i 's/^exec/sleep 0.4\nexec/' "$tools/tar2sqfs"
	fast_conversions
	watch_converters
	for i in {0..3}; do
		step "$BROLGA_TEST_USER" "${refs[i]}"
	done
	for i in {4..6}; do
		step "${others[0]}" "${refs[i]}"
	done
	for i in {7..9}; do
		step "${others[1]}" "${refs[i]}"
	done
	steps_end
	most=$(most_converters)
	((most > 0 && most <= 2)) || fail "there were $most conversions at once"
	(($(conversions) == 10))
	expect_clean
}

@test "convert: the images of a user wait for each other, and those of another user do not" {
	refs=()
	for i in {1..4}; do
		refs+=("$(fresh_image)")
	done
	other=$(fresh_image)
	held_conversions
	for ref in "${refs[@]}"; do
		step "$BROLGA_TEST_USER" "$ref" --container-verbose
	done
	retry 30 conversions_are 1 || fail "no conversion: $(cat "$BATS_TEST_TMPDIR"/step.*)"
	retry 30 helpers_are 4 || fail "no four helpers"
	# This one is asked for last and done first.
	let_go "$other"
	run_ok in_home_of "${others[0]}" crun -w n1 --container-image="$other" cat /stamp
	expect_match '^life/'
	(($(conversions) == 2)) || fail "the first user has $(($(conversions) - 1)) conversions"
	(($(converters | wc -l) == 1))
	fast_conversions
	steps_end
	cat "$BATS_TEST_TMPDIR"/step.* >"$BATS_TEST_TMPDIR/all"
	(($(grep -c 'brolga: waited [0-9.]* s for other conversions: the site allows 2 on a node, 1 of them for the same user' "$BATS_TEST_TMPDIR/all") >= 3)) ||
		fail "$(<"$BATS_TEST_TMPDIR/all")"
	expect_clean
}

@test "convert: two users who want the same image use one conversion, and a third one is not in their way" {
	same=$(fresh_image)
	third=$(fresh_image)
	held_conversions
	step "$BROLGA_TEST_USER" "$same"
	retry 30 is_converting "$same"
	step "${others[0]}" "$same"
	retry 30 helpers_are 2
	let_go "$third"
	run_ok in_home_of "${others[1]}" crun -w n1 --container-image="$third" cat /stamp
	(($(conversions) == 2))
	fast_conversions
	steps_end
	(($(conversions) == 2))
	expect_clean
}

@test "convert: a step that waits for its turn ends with scancel" {
	first=$(fresh_image)
	second=$(fresh_image)
	held_conversions
	step "$BROLGA_TEST_USER" "$first"
	retry 30 is_converting "$first"
	in_background crun -w n1 --job-name=waits --container-image="$second" cat /stamp
	retry 30 helpers_are 2
	as_user scancel --name=waits
	background_ends
	((status != 0))
	retry 30 helpers_are 1 || fail "the helper of the step that was cancelled still waits"
	fast_conversions
	steps_end
	! is_converting "$second" || fail "the image was converted for nobody"
	run_ok crun -w n1 --container-image="$second" cat /stamp
	expect_clean
}

@test "convert: whatever is killed, its turn is over, and no draft is left" {
	for victim in helpers converters tar2sqfs_running; do
		ref=$(fresh_image)
		rm -f "$tools/log"
		slow_conversions
		in_background crun -w n1 --container-image="$ref" cat /stamp
		conversions_stuck
		"$victim" | xargs -r kill -KILL
		background_ends
		((status != 0)) || fail "the step was not harmed: $output"
		retry 10 no_drafts || fail "after the end of $victim there is left: $(store_drafts)"
		fast_conversions
		run_ok crun -w n1 --container-image="$ref" cat /stamp
		expect_match '^life/'
	done
	expect_clean
}

# store_has REF
store_has() { [[ -e $(store_file "$1") ]]; }

@test "store_user_share: a user's own images make room, and nobody else's" {
	site_config 'store_user_share = "40m"'
	rm -f "$BROLGA_CLUSTER_DIR"/store/sha256/*
	theirs=$(fresh_image 15)
	old=$(fresh_image 15)
	used=$(fresh_image 15)
	new=$(fresh_image 15)
	run_ok in_home_of "${others[0]}" crun --container-image="$theirs" cat /stamp
	run_ok crun --container-image="$old" cat /stamp
	for ref in "$theirs" "$old"; do
		touch --date='-2 hours' "$(store_file "$ref" | sed 's/squashfs$/json/')"
	done
	# The image that another user was the first to want counts for that user only.
	run_ok crun --container-image="$theirs" cat /stamp
	run_ok brolga images --store --config "$BROLGA_CONFIG"
	expect_match "^$theirs .* ${others[0]} +$BROLGA_CLUSTER_DIR/store\$"
	in_background crun -w n1 --container-image="$used" bash -c "$until_go; cat /stamp"
	tasks_run 1
	touch --date='-3 hours' "$(store_file "$used" | sed 's/squashfs$/json/')"
	run_ok crun -w n1 --container-image="$new" cat /stamp
	store_has "$theirs" && store_has "$used" && store_has "$new"
	! store_has "$old" || fail "the image that was not used for long is still there"
	go_on
	background_ends
	((status == 0)) || fail "$output"
	newest=$(fresh_image 15)
	run_ok crun -w n1 --container-image="$newest" cat /stamp
	! store_has "$used" || fail "the image that was not used for longest is still there"
	expect_clean
}

@test "store_user_share: where images in use leave no room, the error says so and nothing is removed" {
	site_config 'store_user_share = "20m"'
	rm -f "$BROLGA_CLUSTER_DIR"/store/sha256/*
	used=$(fresh_image 12)
	new=$(fresh_image 12)
	in_background crun -w n1 --container-image="$used" bash -c "$until_go; cat /stamp"
	tasks_run 1
	run_fails crun -w n1 --container-image="$new" cat /stamp
	expect_match 'brolga: error: convert .*: your share of the store is full: images in use take 1[0-9] MiB of 20 MiB, and this one takes 1[0-9] MiB$'
	expect_match "brolga: hint: use images that are in the store, or ask an administrator to raise store_user_share in the site's configuration\$"
	store_has "$used"
	no_drafts
	# Others have their own.
	run_ok in_home_of "${others[0]}" crun -w n1 --container-image="$new" cat /stamp
	go_on
	background_ends
	((status == 0)) || fail "$output"
	expect_clean
}

@test "store_user_share: a bomb is stopped when it is larger than the share" {
	site_config 'store_user_share = "5m"'
	rm -f "$BROLGA_CLUSTER_DIR"/store/sha256/*
	small=$(fresh_image)
	bomb=$(fresh_image 40)
	run_ok crun --container-image="$small" cat /stamp
	run_fails crun --container-image="$bomb" cat /stamp
	expect_match "brolga: error: convert $bomb@sha256:[0-9a-f]*: the image is larger than all that one user may have in the store, 5 MiB\$"
	expect_match 'brolga: hint: .*store_user_share'
	# To remove other images would not help.
	store_has "$small"
	no_drafts
	expect_clean
}

# small_store: a store of 60 MiB, in $small.
small_store() {
	small=$BROLGA_CLUSTER_DIR/small
	mkdir "$small"
	mount -t tmpfs -o size=60m,mode=0711 tmpfs "$small"
	chown brolga "$small"
	sed -i "s|^store = .*|store = \"$small\"|" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
}

@test "store_user_share: a squashfs that is larger than the share does not fill the store" {
	small_store
	site_config 'store_user_share = "5m"'
	make_tree "$BATS_TEST_TMPDIR/tree"
	head -c 80M /dev/urandom >"$BATS_TEST_TMPDIR/tree/bulk"
	mksquashfs "$BATS_TEST_TMPDIR/tree" "$user_home/bomb.sqsh" -all-root -noappend -quiet -no-progress >/dev/null
	chown "$BROLGA_TEST_USER:" "$user_home/bomb.sqsh"
	run_ok as_user brolga load --name loaded/bomb:1 bomb.sqsh
	rm "$user_home/bomb.sqsh"
	run_fails crun -w n1 --container-image=loaded/bomb:1 cat /stamp
	expect_match 'brolga: error: convert .*: the image is larger than all that one user may have in the store, 5 MiB$'
	as_user brolga rmi --force docker.io/loaded/bomb:1
	umount "$small"
	rmdir "$small"
}

@test "store_max_size: a percentage is of the file system" {
	small_store
	site_config 'store_max_size = "20%"'
	site_config 'store_user_share = "0"'
	site_config 'store_keep = "1h"'
	first=$(fresh_image 10)
	second=$(fresh_image 10)
	run_ok crun --container-image="$first" cat /stamp
	rm -f "$small/collected"
	touch --date='-2 hours' "$small"/sha256/*.json
	run_ok crun --container-image="$second" cat /stamp
	stored=("$small"/sha256/*.squashfs)
	((${#stored[@]} == 1)) || fail "${stored[*]}"
}
