#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-sync: the nodes of a step wait for each other.

load ../lib/helpers
load ../lib/lifecycle
load ../lib/sync

waited='error: brolga: error: wait for the other nodes of the step: '

@test "sync: no task starts before the containers of all nodes are ready" {
	freeze n4
	sync_step sh -c 'echo "$SLURMD_NODENAME" >>started; echo runs'
	tasks_wait 3
	[[ ! -e $user_home/started ]] || fail "these did not wait: $(<"$user_home/started")"
	thaw
	background_ends
	((status == 0)) || fail "$output"
	expect_lines 4 '^runs$'
	(($(sort -u "$user_home/started" | wc -l) == 4))
	expect_clean
}

@test "sync: without it tasks do not wait" {
	freeze n4
	patiently crun -N4 --container-image="$BROLGA_TEST_IMAGE" sh -c 'echo "$SLURMD_NODENAME" >>started'
	tasks_run 3
	thaw
	background_ends
	((status == 0)) || fail "$output"
}

@test "sync: one node, a batch script and its steps, and a shell of salloc need no more than the option" {
	run_ok crun -N1 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo alone
	expect_line alone
	cat >"$user_home/sync.sh" <<-SCRIPT
		#!/bin/bash
		echo "in \$(cat /etc/debian_version)"
	SCRIPT
	run_ok as_user sbatch --wait -N2 --container-sync --container-image="$BROLGA_TEST_IMAGE" -o sync.out sync.sh
	run_ok as_user cat sync.out
	expect_match '^in 12'
	cat >"$user_home/sync.sh" <<-SCRIPT
		#!/bin/bash
		srun -N3 -n3 --container-sync --container-image=$BROLGA_TEST_IMAGE echo one
		srun -N2 -n4 --export=NONE --container-sync --container-image=$BROLGA_TEST_IMAGE /bin/echo two
	SCRIPT
	run_ok as_user sbatch --wait -N4 -n8 -o sync.out sync.sh
	run_ok as_user cat sync.out
	expect_lines 3 '^one$'
	expect_lines 4 '^two$'
	run_ok as_user salloc -N2 srun --container-sync --container-image="$BROLGA_TEST_IMAGE" echo allocated
	expect_lines 2 '^allocated$'
	expect_no_leftovers
}

@test "sync: the components of a heterogeneous step wait for each other" {
	freeze n3
	patiently crun -N1 -n1 -w n1 --container-sync --container-image="$BROLGA_TEST_IMAGE" sh -c 'echo "$SLURMD_NODENAME" >>started' : \
		-N2 -n2 -w n2,n3 --container-sync --container-image="$BROLGA_TEST_IMAGE" sh -c 'echo "$SLURMD_NODENAME" >>started'
	tasks_wait 2
	[[ ! -e $user_home/started ]] || fail "these did not wait: $(<"$user_home/started")"
	thaw
	background_ends
	((status == 0)) || fail "$output"
	(($(sort -u "$user_home/started" | wc -l) == 3))
	expect_no_leftovers
}

@test "sync: servers of other nodes are there when the first task calls them" {
	# shellcheck disable=SC2016 # for the shells of tasks
	run_ok crun -N4 --container-sync --container-ssh --container-image="$BROLGA_TEST_IMAGE" \
		bash -c 'for n in 1 2 3 4; do ssh n$n "echo from \$SLURMD_NODENAME" </dev/null & done; wait
			echo >>started; while (($(wc -l <started) < 4)); do sleep 0.1; done' # a server ends with the tasks
	for node in n1 n2 n3 n4; do expect_lines 4 "^from $node\$"; done
	expect_no_leftovers
}

@test "sync: a container that was kept needs no image" {
	cat >"$user_home/sync.sh" <<-SCRIPT
		#!/bin/bash
		srun --container-name=kept --container-writable --container-image=$BROLGA_TEST_IMAGE sh -c 'echo kept >/var/tmp/kept'
		srun --container-name=kept --container-sync cat /var/tmp/kept
		srun --container-name=kept --container-ssh sh -c 'ssh -n n1 cat /var/tmp/kept; ssh -n n2 cat /var/tmp/kept; echo >>started
			while [ "\$(wc -l <started)" -lt 2 ]; do sleep 0.1; done'
	SCRIPT
	run_ok as_user sbatch --wait -N2 -n2 -o sync.out sync.sh
	run_ok as_user cat sync.out
	expect_lines 6 '^kept$'
	expect_no_leftovers
}

@test "sync: the variable asks for it, and steps side by side do not disturb each other" {
	local step
	for step in 1 2 3; do
		as_user env BROLGA_CONTAINER_SYNC=1 srun -N4 --container-image="$BROLGA_TEST_IMAGE" \
			echo runs >"$BATS_TEST_TMPDIR/step.$step" 2>&1 3>&- &
		pid[step]=$!
	done
	for step in 1 2 3; do
		wait "${pid[step]}" || fail "$(cat "$BATS_TEST_TMPDIR/step.$step")"
		(($(grep -cx runs "$BATS_TEST_TMPDIR/step.$step") == 4))
	done
	run_ok as_user env BROLGA_CONTAINER_SYNC=1 srun -N4 --container-verbose --container-image="$BROLGA_TEST_IMAGE" true
	expect_lines 4 'brolga: hook sync took [0-9.]+ ms$'
	run_fails crun -N2 --container-image="$BROLGA_TEST_IMAGE" --export=ALL,BROLGA_CONTAINER_SYNC=1 echo runs
	expect_lines 2 'hint: .* variables where srun is called, not with --export'
}

@test "sync: a node without the image ends all others at once, with its name" {
	own_config n3 "cache = \"$tools/nothing/{user}\"" "store = \"$tools/store\""
	install -d -o brolga -m 0711 "$tools/store"
	run_fails crun -N4 --container-sync --container-pull=never --container-image="$BROLGA_TEST_IMAGE" echo runs
	refute_match '^runs$'
	expect_lines 3 "$waited"'n3: .*debian:12.* is not in your cache'
	expect_lines 1 "$(stepd n3)"'error: brolga: error: get image .*debian:12.* is not in your cache'
	expect_no_leftovers
}

@test "sync: a node that is not allowed the image ends all others" {
	own_config n2 "policy.deny = [\"${BROLGA_TEST_IMAGE%:*}\"]"
	run_fails crun -N4 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	refute_match '^runs$'
	expect_lines 3 "$waited"'n2: image .*/debian is denied on this cluster'
	expect_no_leftovers
}

@test "sync: a node whose configuration cannot be read ends all others" {
	own_config n3 'nonsense = 1'
	run_fails crun -N4 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	refute_match '^runs$'
	expect_lines 3 "$waited"'n3: read site configuration .*unknown key nonsense'
	expect_lines 1 "$(stepd n3)"'error: brolga: error: read site configuration .*unknown key nonsense'
	chmod 0666 "$tools/own.toml"
	run_fails crun -N4 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	refute_match '^runs$'
	expect_lines 3 "$waited"'n3: read site configuration: .*someone other than root could change it$'
	expect_no_leftovers
}

@test "sync: a node whose tasks cannot start ends all others" {
	run_fails crun -N4 --container-sync --container-image="$BROLGA_TEST_IMAGE" --container-workdir=/none echo runs
	expect_lines 4 'enter working directory /none: no such directory in the container$'
	expect_lines 4 'hint: --container-workdir names a directory in the container$'
	expect_no_leftovers
}

@test "sync: a helper that is killed ends all others, also those that still work" {
	local ref victim
	ref=$(fresh_image)
	sync_config
	slow_conversions
	in_background crun -N4 --container-sync --container-image="$ref" echo runs
	conversions_stuck
	tasks_wait 4
	retry 10 all_have_called || fail "$(ss -Htn)"
	victim=$(helpers | tail -n 1)
	kill -KILL "$victim"
	background_ends 15
	((status != 0))
	refute_match '^runs$'
	expect_lines 1 'brolga: error: the helper ended without an answer$'
	expect_lines 3 "$waited"'n[1-4]: it ended before all nodes were ready$'
	fast_conversions
	expect_no_leftovers
}

# The three others are connected to the first node: each connection is seen twice.
all_have_called() {
	(($(ss -Htn state established "sport >= ${ports%-*} and sport <= ${ports#*-}" | wc -l) == 3))
}

@test "sync: a node that never starts is named on all others when the time is over" {
	sync_config 'timeout = "2s"'
	freeze n4
	sync_step echo runs
	retry 20 has_lines_of 3 "$waited" || fail "$(cat "$BATS_TEST_TMPDIR/background")"
	thaw
	background_ends
	((status != 0))
	refute_match '^runs$'
	for node in n1 n2 n3; do
		# A busy machine may not have made the others ready in that time.
		expect_match "$(stepd "$node")${waited}after 2s nothing was heard of n4(, and not ready: n.*)?$"
	done
	expect_clean
}

has_lines_of() { (($(grep -cE "$2" "$BATS_TEST_TMPDIR/background") >= $1)); }

# All but the first node listen on 127.0.0.1 alone, where the ports are free.
@test "sync: a node whose ports are all taken ends all others, although they cannot call it" {
	sync_config 'interface = "lo"'
	own_config n1
	grep -v '^interface' "$BROLGA_CLUSTER_DIR/etc/brolga.toml" >"$BATS_TEST_TMPDIR/any"
	cat "$BATS_TEST_TMPDIR/any" >"$tools/own.toml"
	take_ports 127.7.7.7
	run_fails crun -N4 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	refute_match '^runs$'
	expect_lines 4 "${waited}n1: listen for other nodes: no port that it may have in $ports is free\$"
	expect_lines 4 'hint: other programs on the node listen there; '
	expect_no_leftovers
}

@test "sync: a node that is configured otherwise says so when the time is over" {
	local common=$ports
	pick_ports
	while [[ $ports == "$common" ]]; do pick_ports; done
	sync_config 'timeout = "4s"'
	own_config n2
	ports=$common
	sync_config 'timeout = "4s"'
	run_fails crun -w n1,n2 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	expect_match "slurmstepd-n1: ${waited}after 4s nothing was heard of n2"
	expect_match "slurmstepd-n2: error: brolga: hint: sync.ports is [0-9-]+ on this node and $common where the step was submitted: all nodes must have the same$"
	expect_no_leftovers
}

@test "sync: a node that takes too long is named on all nodes" {
	local ref
	ref=$(fresh_image)
	sync_config 'timeout = "3s"'
	slow_conversions
	run_fails crun -N4 --container-sync --container-image="$ref" echo runs
	expect_lines 4 "${waited}after 3s not ready: n\[1-4\]$"
	expect_lines 4 'hint: their images may take longer to prepare'
	fast_conversions
	expect_no_leftovers
}

@test "sync: scancel ends a step that waits" {
	freeze n4
	sync_step echo runs
	tasks_wait 3
	as_user scancel --user "$BROLGA_TEST_USER"
	thaw
	background_ends
	((status != 0))
	expect_no_leftovers
}

@test "sync: an interface and another network of the nodes" {
	sync_config 'interface = "lo"'
	run_ok crun -N4 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	expect_lines 4 '^runs$'
	sync_config 'address = "{node}-none.invalid"' 'timeout = "1s"'
	run_fails crun -w n1,n2 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	expect_match "$(stepd n2)${waited}after 1s nothing was heard of n1 \(.*lookup n1-none.invalid"
	sync_config 'interface = "none0"'
	run_fails crun -N2 --container-sync --container-image="$BROLGA_TEST_IMAGE" echo runs
	expect_match 'find interface none0: '
	expect_no_leftovers
}

@test "sync: a site's mistakes are all found where the step is submitted" {
	sync_config 'fanout = 1' 'timeout = "0s"' 'address = "localhost"'
	run_fails crun -N4 --container-sync --container-image="$BROLGA_TEST_IMAGE" true
	for key in fanout timeout address; do
		expect_match "sync.$key"
	done
	sync_config
	sed -i 's/^ports = .*/ports = "7"/' "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	run_fails crun -N4 --container-sync --container-image="$BROLGA_TEST_IMAGE" true
	expect_match '"7" is not a range of ports such as'
}
