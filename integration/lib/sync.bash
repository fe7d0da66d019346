# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For tests of nodes that wait for each other: "load ../lib/sync" after "load ../lib/helpers"
# and "load ../lib/lifecycle", whose teardown it extends.
#
#   sync_config KEY=VALUE...  lines of [sync] of the site's configuration
#   ports                     set by setup: a range of ports that nobody uses
#   freeze NODE / thaw        a slurmd that does not answer, until thaw
#   tasks_wait N              wait until N tasks wait for their helper
#   root_port                 the port on which the first node listens
#   take_ports ADDRESS        listen on all ports there until the test ends
#   own_config NODE LINE...   give a node another configuration: its slurmd starts
#                             again, where it sees another file

setup() {
	mark_logs
	install -d -o brolga "$tools"
	cp -p "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$tools/brolga.toml"
	as_user rm -f started go
	background='' frozen='' changed='' taker=''
	pick_ports
	# shellcheck disable=SC2119 # no lines of its own
	sync_config
}

teardown() {
	thaw
	[[ -z $taker ]] || kill "$taker"
	[[ -z $changed ]] || common_config "$changed"
	dump_logs_on_failure
	fast_conversions
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	[[ -z $background ]] || kill "$background" 2>/dev/null || true
	cp -p "$tools/brolga.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	rm -rf "$tools"
}

# Clusters and their tests run side by side: each has ports of its own. They are below
# those of clusters, and of connections that programs make (ip_local_port_range).
pick_ports() {
	local first
	first=$((10000 + (RANDOM % 1000) * 10))
	ports=$first-$((first + 9))
}

# shellcheck disable=SC2120 # tests pass lines
sync_config() {
	{
		cat "$tools/brolga.toml"
		printf '[sync]\nports = "%s"\n' "$ports"
		(($# == 0)) || printf '%s\n' "$@"
	} >"$BROLGA_CLUSTER_DIR/etc/brolga.toml"
}

slurmd_of() { cat "$BROLGA_CLUSTER_DIR/pid/slurmd.$1.pid"; }

freeze() {
	frozen=$(slurmd_of "$1")
	kill -STOP "$frozen"
}

thaw() {
	[[ -z $frozen ]] || kill -CONT "$frozen"
	frozen=
}

tasks_wait() { retry 20 tasks_are "$1" || fail "not $1 tasks wait: $(cat "$BATS_TEST_TMPDIR/background")"; }

tasks_are() { (($(tasks_waiting | wc -l) == $1)); }

listening() {
	ss -Hltn | awk -v range="$ports" 'BEGIN {split(range, r, "-")} {sub(/.*:/, "", $4)} $4 >= r[1] && $4 <= r[2] {print $4}' | sort -u
}

root_port() {
	retry 20 is_listening || fail "no node listens"
	listening | head -n 1
}

is_listening() { [[ -n $(listening) ]]; }

take_ports() {
	python3 - "$1" "${ports%-*}" "${ports#*-}" >"$BATS_TEST_TMPDIR/taken" 3>&- <<-'PYTHON' &
		import socket, sys, time
		held = [socket.create_server((sys.argv[1], port)) for port in range(int(sys.argv[2]), int(sys.argv[3]) + 1)]
		print("taken", flush=True)
		time.sleep(600)
	PYTHON
	taker=$!
	retry 30 test -s "$BATS_TEST_TMPDIR/taken"
}

# own_config NODE LINE...: this node has these lines instead of others of that key.
own_config() {
	local node=$1 line
	shift
	cp "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$tools/own.toml"
	for line in "$@"; do
		sed -i -e "/^${line%% *} = /d" -e "1i $line" "$tools/own.toml"
	done
	chmod 0644 "$tools/own.toml"
	changed=$node
	end_slurmd "$node"
	unshare --mount --propagation slave sh -c "
		mount --bind '$tools/own.toml' '$BROLGA_CLUSTER_DIR/etc/brolga.toml'
		exec slurmd -N '$node'" </dev/null >>"$BROLGA_CLUSTER_DIR/log/slurmd.$node.log" 2>&1 3>&- 4>&-
	nodes_idle
}

common_config() {
	changed=
	end_slurmd "$1"
	slurmd -N "$1" </dev/null >>"$BROLGA_CLUSTER_DIR/log/slurmd.$1.log" 2>&1 3>&- 4>&-
	nodes_idle
}

end_slurmd() {
	local pid
	pid=$(slurmd_of "$1")
	kill "$pid"
	retry 10 not_alive "$pid"
}

# patiently CMD...: in the background. A frozen slurmd has srun give up after ten
# seconds, by the configuration that it reads, and a busy machine may take as long to
# get where a test wants it.
patiently() {
	{
		cat "$SLURM_CONF"
		echo MessageTimeout=60
	} >"$tools/slurm.conf"
	SLURM_CONF=$tools/slurm.conf in_background "$@"
}

# sync_step OPTION... CMD...: a step on all nodes, in the background.
sync_step() { patiently crun -N4 --container-image="$BROLGA_TEST_IMAGE" --container-sync "$@"; }

# expect_lines N REGEX: so many lines match, and there is one for each node.
expect_lines() {
	(($(grep -cE -e "$2" <<<"$output") == $1)) || fail "not $1 lines: $2"$'\n'"in: $output"
}
