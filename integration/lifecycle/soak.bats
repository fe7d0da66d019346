#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A short soak run: random steps, SIGKILLs at random moments, and faults of the store,
# the registry and the clock. "make soak" is the long one.

load ../lib/helpers

driver=$repo/scripts/soak.d/driver

# number WHAT: what the table says of it.
number() { sed -n "s/^| $1 | \([0-9]*\) |$/\1/p" <<<"$output"; }

@test "soak: steps, kills and faults leave nothing over, hang nothing and drain no node" {
	run "$driver" --steps 170 --kills 14 --faults 7 --seed 11 --checkpoints 2 --only "store full" --only "store read-only" \
		--only "store gone" --only "store fails" --only "store fails to write" --only "registry faulty" --only "clock jumps ahead"
	((status == 0)) || fail "$output"
	(($(number "steps") >= 170 && $(number "processes killed") >= 14)) || fail "$output"
	[[ $(number "steps that failed undisturbed") == 0 ]]
	nodes_idle
	expect_no_leftovers
}

@test "soak: a run tells of what is left over" {
	# A file of the helper's that nobody removes.
	(
		until [[ -d $BROLGA_CLUSTER_DIR/soak ]]; do sleep 0.1; done
		until grep -q checkpoint "$BATS_TEST_TMPDIR/log"; do sleep 0.1; done
		touch "$BROLGA_CLUSTER_DIR/run/forgotten"
	) 3>&- 2>/dev/null &
	run "$driver" --steps 45 --kills 0 --faults 0 --checkpoints 1 --log "$BATS_TEST_TMPDIR/log"
	rm -f "$BROLGA_CLUSTER_DIR/run/forgotten"
	((status == 1)) || fail "$output"
	expect_match "problem: left over: file .*/run/forgotten"
}
