#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Nodes that wait for each other believe only who knows the secret of their step, and
# nobody but the user and root gets to know it.

load ../lib/helpers
load ../lib/lifecycle
load ../lib/sync

# print_secret: a script that srun runs where the step is submitted (--prolog).
print_secret() {
	# shellcheck disable=SC2016 # the script expands it
	printf '#!/bin/sh\necho "secret $BROLGA_STEP_SECRET" >&2\n' >"$user_home/secret.sh"
	chmod 755 "$user_home/secret.sh"
}

secrets() { sed -n 's/^secret //p' <<<"$output"; }

@test "sync: each step has a secret of its own, which no task sees" {
	print_secret
	cat >"$user_home/sync.sh" <<-SCRIPT
		#!/bin/bash
		for step in 1 2; do
			srun -N2 --prolog=$user_home/secret.sh --container-sync --container-image=$BROLGA_TEST_IMAGE \
				sh -c 'env; tr "\\\\0" "\\\\n" </proc/self/environ; tr "\\\\0" "\\\\n" </proc/\$PPID/environ 2>/dev/null; true'
		done
	SCRIPT
	run_ok as_user sbatch --wait -N2 -n2 -o sync.out sync.sh
	run_ok as_user cat sync.out
	(($(secrets | grep -cE '^[0-9a-f]{64}$') == 2)) || fail "$output"
	(($(secrets | sort -u | wc -l) == 2))
	expect_match '^SLURM_STEP_NODELIST='
	refute_match 'BROLGA_STEP_'
	for secret in $(secrets); do
		expect_lines 1 "$secret"
	done
}

@test "sync: the secret is in no record, log, message or command line" {
	local secret job file
	print_secret
	freeze n4
	sync_step --prolog="$user_home/secret.sh" -vvv --slurmd-debug=debug3 --container-verbose true
	tasks_wait 3
	output=$(<"$BATS_TEST_TMPDIR/background")
	secret=$(secrets | head -n 1)
	[[ $secret =~ ^[0-9a-f]{64}$ ]] || fail "$output"
	job=$(squeue --noheader --format %i --user "$BROLGA_TEST_USER")
	output=$(
		scontrol show job -dd "$job"
		scontrol show step "$job"
		squeue --steps --Format=all 2>/dev/null
		cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n'
	)
	refute_match "$secret"
	# The environments of all processes of this user, srun's own included, and slurmd's.
	for file in /proc/[0-9]*/environ; do
		! grep -qsF "$secret" "$file" || fail "$file: $(tr '\0' ' ' <"${file%environ}cmdline")"
	done
	thaw
	background_ends
	((status == 0)) || fail "$output"
	output=$(grep -v '^secret ' <<<"$output")
	refute_match "$secret"
	! grep -rqsF "$secret" "$BROLGA_CLUSTER_DIR"/{log,state,spool,run,etc,store} || fail "$(grep -rlsF "$secret" "$BROLGA_CLUSTER_DIR"/{log,state,spool,run,etc,store})"
}

@test "sync: what sbatch and salloc submit has no secret" {
	run_ok as_user sbatch --wait -N1 --container-sync --container-image="$BROLGA_TEST_IMAGE" -o sync.out --wrap 'env'
	run_ok as_user cat sync.out
	refute_match 'BROLGA_STEP_'
	run_ok as_user salloc -N1 --container-sync --container-image="$BROLGA_TEST_IMAGE" env
	refute_match 'BROLGA_STEP_'
}

@test "sync: strangers on the port who send garbage, or nothing, change nothing" {
	local port loris
	freeze n4
	sync_step echo runs
	port=$(root_port)
	head -c 100000 /dev/urandom >"$BATS_TEST_TMPDIR/garbage"
	# Says nothing.
	# shellcheck disable=SC2016 # the shell that holds the connections expands it
	timeout 60 bash -c 'for i in {1..20}; do exec {held}<>"/dev/tcp/127.0.0.1/$0"; done; sleep 60' "$port" 3>&- &
	loris=$!
	for _ in {1..5}; do
		timeout 5 bash -c "cat '$BATS_TEST_TMPDIR/garbage' >/dev/tcp/127.0.0.1/$port" 2>/dev/null || true
		printf 'GET / HTTP/1.0\r\n\r\n' | timeout 5 bash -c "cat >/dev/tcp/127.0.0.1/$port; exit 0"
		{
			printf 'brolga barrier 1'
			head -c 200 /dev/zero
		} | timeout 5 bash -c "cat >/dev/tcp/127.0.0.1/$port; exit 0"
	done
	tasks_wait 3
	thaw
	background_ends
	kill "$loris"
	((status == 0)) || fail "$output"
	expect_lines 4 '^runs$'
	expect_no_leftovers
}

@test "sync: a secret that the user brings along does not take the place of the step's" {
	# shellcheck disable=SC2016 # the container's shell expands it
	run_ok crun -N2 --container-sync --container-image="$BROLGA_TEST_IMAGE" \
		--export=ALL,BROLGA_STEP_SECRET=abcdef sh -c 'echo "runs$BROLGA_STEP_SECRET"'
	expect_lines 2 '^runs$'
	run_fails as_user env BROLGA_STEP_SECRET=abcdef srun -N2 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	expect_line 'brolga: error: BROLGA_STEP_SECRET is malformed: unset it'
	refute_match 'abcdef|^runs$'
}

@test "sync: ports that are taken are passed over, and no port is an error that says so" {
	local first=${ports%-*} pid
	ports=$first-$((first + 1))
	sync_config
	python3 -c "
import socket, time
s = [socket.create_server(('', $first + i)) for i in range(1)]
print('ready', flush=True)
time.sleep(60)" >"$BATS_TEST_TMPDIR/taken" 3>&- &
	pid=$!
	retry 10 grep -q ready "$BATS_TEST_TMPDIR/taken"
	run_ok crun -N4 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	expect_lines 4 '^runs$'
	ports=$first-$first
	sync_config 'timeout = "3s"'
	run_fails crun -N4 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	kill "$pid"
	refute_match '^runs$'
	expect_match "$(stepd n1)error: brolga: error: .*n1: listen for other nodes: no port that it may have in $first-$first is free\$"
	for node in n2 n3 n4; do
		expect_match "$(stepd "$node")error: brolga: error: .*after 3s nothing was heard of n1"
	done
	expect_no_leftovers
}

@test "sync: another user can read the secret nowhere" {
	freeze n4
	sync_step echo runs
	tasks_wait 3
	for pid in $(pgrep -u "$BROLGA_TEST_USER" srun) $(helpers); do
		! runuser -u nobody -- cat "/proc/$pid/environ" >/dev/null 2>&1 || fail "nobody reads /proc/$pid/environ"
		! runuser -u nobody -- cat "/proc/$pid/mem" >/dev/null 2>&1 || fail "nobody reads /proc/$pid/mem"
	done
	thaw
	background_ends
	((status == 0)) || fail "$output"
}
