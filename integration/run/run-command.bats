#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# brolga run: the command, what it is given and what becomes of its end.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images
load ../lib/run

@test "run: the exit code is the command's" {
	run_ok brun "$BROLGA_TEST_IMAGE" true
	for code in 1 7 255; do
		run brun "$BROLGA_TEST_IMAGE" sh -c "exit $code"
		((status == code)) || fail "status $status instead of $code"
	done
}

@test "run: a command that a signal kills is seen to be killed by it" {
	for kind in "" --init; do
		# The shell prints what it was told of the process's end, a signal.
		run_ok as_user BROLGA_CONFIG="$BROLGA_CONFIG" python3 -c '
import subprocess, sys
print(subprocess.run(["brolga", "run", *sys.argv[1:]]).returncode)' $kind "$BROLGA_TEST_IMAGE" sh -c 'kill -SEGV $$'
		expect_line -11
	done
}

@test "run: what cannot be executed ends with 127 or 126, as in a shell" {
	run -127 brun "$BROLGA_TEST_IMAGE" no-such-program
	expect_line "brolga: error: execute no-such-program in the container: No such file or directory"
	run -126 brun "$BROLGA_TEST_IMAGE" /etc/passwd
	expect_line "brolga: error: execute /etc/passwd in the container: Permission denied"
	run -127 brun --init "$BROLGA_TEST_IMAGE" no-such-program
}

@test "run: errors of brolga's own end with 125, one line each" {
	run -125 brun --no-such-option "$BROLGA_TEST_IMAGE" true
	expect_one_error "run: unknown option --no-such-option"
	run brun
	((status == 125))
	expect_one_error "run: want [OPTION...] IMAGE [COMMAND...]"
	run -125 brun --workdir=relative --unshare=cgroup "$BROLGA_TEST_IMAGE" true
	expect_match 'workdir.*relative'
	expect_match 'unshare.*cgroup'
	run -125 brun "$BROLGA_TEST_REGISTRY/no/such:image" true
	expect_match '^brolga: error: pull .*no/such:image'
}

@test "run: input, output and error are the command's, whatever they are" {
	[[ $(seq 100000 | brun "$BROLGA_TEST_IMAGE" cat | tail -n1) == 100000 ]]
	brun "$BROLGA_TEST_IMAGE" sh -c 'echo out; echo err >&2' >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err"
	[[ $(<"$BATS_TEST_TMPDIR/out") == out && $(<"$BATS_TEST_TMPDIR/err") == err ]]
	run_ok brun "$BROLGA_TEST_IMAGE" readlink /proc/self/fd/0 </dev/null
	expect_line /dev/null
	# Other descriptors, too, and none more.
	exec 7<"$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	run_ok brun "$BROLGA_TEST_IMAGE" sh -c 'head -n1 <&7; ls /proc/self/fd | wc -l'
	exec 7<&-
	expect_match '^store = '
}

@test "run: who waits for the end of the output waits for the command and nothing else" {
	# The container lives on for a while in neither case.
	run_ok timeout 60 bash -c 'out=$("$@" 2>&1); echo "$out"' - \
		runuser -u "$BROLGA_TEST_USER" -- env HOME="$user_home" BROLGA_CONFIG="$BROLGA_CONFIG" \
		brolga run "$BROLGA_TEST_IMAGE" sh -c 'sleep 8701 & echo done' 3>&-
	expect_line "done"
	expect_nothing_left
}

@test "run: the command is the process that was started, and has no children it did not make" {
	run_ok brun "$BROLGA_TEST_IMAGE" sh -c 'cat /proc/$$/task/$$/children; echo none' # itself
	[[ $output == none ]] || [[ $output =~ ^[0-9]+\ none$ ]] || fail "$output"
	run_background "$BROLGA_TEST_IMAGE" sh -c 'echo $$; sleep 8702'
	wait_for "$command"
	kill "$command"
	wait "$command" || true
	expect_nothing_left
}

@test "run: without a command it is the image's, with its entrypoint, as docker has it" {
	new_image
	printf '#!/bin/sh\necho entry "$@"\n' >"$image/entry"
	chmod 755 "$image/entry"
	push_image --entrypoint /entry --cmd from --cmd cmd run-both
	run_ok brun "$ref"
	expect_line "entry from cmd"
	run -127 brun --no-entrypoint "$ref" # there is no program "from"
	run_ok brun --entrypoint "$ref" given
	expect_line "entry given"
	# As srun does it.
	run_ok brun "$ref" sh -c 'echo plain'
	expect_line plain
	run_ok brun --entrypoint-log "$ref"
	expect_line "brolga: entrypoint: /entry"
}

@test "run: an image without a command of its own wants one" {
	new_image
	push_image run-none
	run -125 brun "$ref"
	expect_one_error "$ref@$(as_user brolga images --json | jq -r --arg r "$ref" '.[] | select(.reference == $r).digest') has no command of its own"
}

@test "run: the user is the user, in the container's accounts too" {
	run_ok brun "$BROLGA_TEST_IMAGE" sh -c 'id -un; id -u; id -g; getent passwd "$(id -u)" | cut -d: -f6; cat /proc/self/uid_map | tr -s " "'
	expect_line "$BROLGA_TEST_USER"
	expect_line "$(id -u "$BROLGA_TEST_USER")"
	expect_line "$(id -g "$BROLGA_TEST_USER")"
	expect_line "$user_home"
	# A namespace has one group; the others still count, but have no name there.
	as_user touch by-group
	chgrp brolgagrp2 "$user_home/by-group"
	chown root "$user_home/by-group"
	chmod 0040 "$user_home/by-group"
	run_ok brun --mount-home "$BROLGA_TEST_IMAGE" cat by-group
	rm -f "$user_home/by-group"
}

@test "run: the environment is the caller's, the image's wins, and --env decides" {
	run_ok as_user BROLGA_CONFIG="$BROLGA_CONFIG" MINE=1 GONE=2 PATH="$BROLGA_CLUSTER_DIR/prefix/bin:/usr/bin:/bin" \
		brolga run --env=SET=3,-GONE "$BROLGA_TEST_IMAGE" sh -c 'echo "$MINE.$GONE.$SET"; env | grep -c BROLGA_LAUNCH || true'
	expect_line 1..3
	expect_line 0
}

@test "run: root runs containers, too, of the site's store and without a user namespace" {
	BROLGA_CONFIG=$BROLGA_CONFIG run_ok brolga run "$BROLGA_TEST_IMAGE" sh -c 'id -u; grep -E "^Cap(Eff|Bnd)" /proc/self/status; tr -s " " </proc/self/uid_map; grep " / " /proc/self/mountinfo'
	expect_line 0
	expect_match 'CapEff:.*0000000000000000'
	expect_match '0 4294967295$'
	expect_no_leftovers
}
