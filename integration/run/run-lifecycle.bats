#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# brolga run: a container ends with its command, and nothing of it is left.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images
load ../lib/run

# One command with a child, whose names are found again.
pair='echo ready; sleep 8711 & sleep 8712; echo not reached'

teardown() {
	dump_logs_on_failure
	restore_site_config
	pkill -KILL -u "$BROLGA_TEST_USER" sleep || true
}

@test "run: what the command left in the background ends with it" {
	for kind in "" --init; do
		# None has the output: it would be waited for, if it did not end.
		run_ok brun $kind "$BROLGA_TEST_IMAGE" sh -c '(sleep 8711 & setsid sleep 8712 &) >/dev/null 2>&1; echo done'
		expect_line "done"
		expect_nothing_left
	done
}

@test "run: SIGTERM and SIGHUP end it, and are what it is seen to have died of" {
	for signal in TERM HUP; do
		for kind in "" --init; do
			run_background $kind "$BROLGA_TEST_IMAGE" sh -c "$pair"
			wait_for ready
			kill -$signal "$command"
			status=0
			wait "$command" || status=$?
			((status == 128 + $(kill -l $signal))) || fail "status $status after $signal $kind"
			! grep -q 'not reached' "$BATS_TEST_TMPDIR/out"
			expect_nothing_left
		done
	done
}

@test "run: a command that handles SIGTERM decides what becomes of it" {
	for kind in "" --init; do
		run_background $kind "$BROLGA_TEST_IMAGE" sh -c 'trap "echo cleaned; exit 3" TERM; echo ready; sleep 8711 & wait'
		wait_for ready
		kill "$command"
		status=0
		wait "$command" || status=$?
		((status == 3)) || fail "status $status"
		wait_for cleaned
		expect_nothing_left
	done
}

@test "run: SIGKILL of brolga ends all of it" {
	for kind in "" --init --unshare=net,ipc; do
		run_background $kind "$BROLGA_TEST_IMAGE" sh -c "$pair"
		wait_for ready
		kill -KILL "$command"
		status=0
		wait "$command" || status=$?
		((status == 137)) || fail "status $status"
		expect_nothing_left
	done
}

@test "run: SIGKILL of brolga while it makes the container leaves nothing" {
	for pause in 0.005 0.010 0.015 0.020 0.025 0.030; do
		run_background "$BROLGA_TEST_IMAGE" sh -c "$pair"
		sleep "$pause"
		kill -KILL "$command" || true
		wait "$command" || true
		expect_nothing_left
	done
}

@test "run: SIGKILL of the keeper takes nothing from the command, and the end is its end" {
	run_background --mount-home "$BROLGA_TEST_IMAGE" sh -c "echo ready; $until_go; echo over; cat /etc/os-release"
	wait_for ready
	run_ok pgrep -u "$BROLGA_TEST_USER" -f '^brolga-launch keep'
	pkill -KILL -u "$BROLGA_TEST_USER" -f '^brolga-launch keep'
	go_on
	wait "$command"
	wait_for bookworm
	expect_nothing_left
}

@test "run: without squashfuse every access fails at once, and nothing hangs" {
	run_background --mount-home "$BROLGA_TEST_IMAGE" sh -c "echo ready; $until_go; read -r line </usr/share/common-licenses/GPL-3; echo \"status \$?: \$line\""
	wait_for ready
	pkill -KILL -u "$BROLGA_TEST_USER" -f 'squashfuse_ll -f'
	go_on
	wait "$command" || true
	wait_for 'Transport endpoint is not connected'
	expect_nothing_left
}

@test "run: many containers at once do not touch each other, and convert the image once" {
	as_user rm -rf "$user_home/.cache/brolga/squashfs"
	pids=()
	for _ in 1 2 3 4 5 6; do
		run_background "$BROLGA_TEST_SMALL_IMAGE"
		pids+=("$command")
	done
	for pid in "${pids[@]}"; do
		wait "$pid"
	done
	[[ $(find "$user_home/.cache/brolga/squashfs/sha256" -type f | wc -l) == 2 ]]
	expect_nothing_left
}

@test "run: a signal that the caller ignores is ignored by the command, as with nohup" {
	run_ok as_user BROLGA_CONFIG="$BROLGA_CONFIG" sh -c '
		trap "" HUP
		exec brolga run "$1" sh -c "kill -HUP \$\$; echo alive"' - "$BROLGA_TEST_IMAGE"
	expect_line alive
}
