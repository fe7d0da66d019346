#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A node that lost its power, in so far as it can be played: all its processes are
# killed, and its slurmd starts again where the kernel has another boot id.

load ../lib/helpers
load ../lib/lifecycle
load ../lib/sync

# shellcheck disable=SC2016 # for the shells of tasks

# reboot NODE: while its one step runs a command without children.
reboot() {
	local pid
	kill -KILL "$(slurmd_of "$1")"
	for pid in $(steps); do
		pkill -KILL -P "$pid" || true
		kill -KILL "$pid"
	done
	retry 30 nothing_mounted || fail "$(leftovers)"
	cat /proc/sys/kernel/random/uuid >"$tools/boot_id"
	# shellcheck disable=SC2034 # for teardown
	changed=$1
	unshare --mount --propagation slave sh -c "
		mount --bind '$tools/boot_id' /proc/sys/kernel/random/boot_id
		exec slurmd -N '$1'" </dev/null >>"$BROLGA_CLUSTER_DIR/log/slurmd.$1.log" 2>&1 3>&- 4>&-
}

nothing_mounted() { ! leftovers | grep -v "^file $BROLGA_CLUSTER_DIR/named/"; }

scope() { printf 'named.scope = "%s"\n' "$1" | cat - "$tools/brolga.toml" >"$BROLGA_CLUSTER_DIR/etc/brolga.toml"; }

kept() { find "$BROLGA_CLUSTER_DIR/named" -mindepth 3 ! -type d -printf '%f\n'; }

nothing_kept() { [[ -z $(kept) ]]; }

@test "reboot: nothing is mounted, the job's containers are made anew, and the user's are as they were" {
	local job with=(--container-image="$BROLGA_TEST_IMAGE")
	scope user
	run_ok crun -w n1 "${with[@]}" --container-name=mine sh -c 'echo kept >/tmp/x; sync /tmp/x'
	scope job
	run_ok as_user salloc --quiet --no-shell --time=5 -w n1
	job=$(squeue --noheader --format %i --user "$BROLGA_TEST_USER")
	in_background crun --jobid="$job" --overlap "${with[@]}" --container-name=work sh -c 'echo lost >/tmp/x; echo >>started; exec sleep 600'
	tasks_run 1
	reboot n1
	run_fails crun --jobid="$job" --overlap --container-name=work cat /tmp/x
	expect_match 'brolga: error: --container-name: there is no container work on node n1$'
	run_ok crun --jobid="$job" --overlap "${with[@]}" --container-name=work sh -c 'ls /tmp; echo anew'
	expect_line anew
	refute_match '^x$'
	scope user
	run_ok crun --jobid="$job" --overlap --container-name=mine cat /tmp/x
	expect_line kept
	as_user scancel "$job"
	nodes_idle
	[[ $(kept | grep -c ^user:mine) == 4 ]] || fail "$(kept)"
	run_ok as_user env BROLGA_CONFIG="$BROLGA_CONFIG" brolga rm mine
	run_ok crun -w n1 true
	retry 30 nothing_kept || fail "kept: $(kept)"
	expect_no_leftovers
}
