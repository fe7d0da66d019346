# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Messages, the state directory, free ports, and the list of daemons.
# Sourced by scripts/cluster, which sets $dir and $here.

# Clusters side by side share some of the machine's users (see users.sh) and its
# ports.
registry_of_clusters=/run/brolga-clusters

say() { printf 'cluster: %s\n' "$*"; }

die() {
	say "$*" >&2
	exit 1
}

usage() {
	sed -n 's/^# \{0,1\}//; /^Usage/,/^set/p' "$here/cluster" | sed '/^set /d' >&2
	exit 2
}

need_root() {
	((EUID == 0)) || die "must run as root: it starts slurmd and makes users"
}

need_tools() {
	local tool
	for tool in slurmctld slurmd srun munged docker-registry htpasswd mmdebstrap tar2sqfs umoci skopeo jq curl ss; do
		command -v "$tool" >/dev/null || die "no $tool here: run \"scripts/deps\" first"
	done
}

make_state_dir() {
	# Slurm puts a socket with a long name below it; sun_path has 108 bytes.
	((${#dir} <= 56)) || die "$dir is too long for the sockets below it: at most 56 characters"
	[[ $dir == /* ]] || die "BROLGA_CLUSTER_DIR is not an absolute path: $dir"
	[[ ! -e $dir/etc/env ]] || die "already up in $dir (\"scripts/cluster down\" ends it)"
	[[ ! -e $dir ]] || die "$dir exists, from an up that failed? \"scripts/cluster down\" removes it"
	# Fails when somebody else made the directory meanwhile.
	mkdir -m 0755 "$dir"
	mkdir "$dir"/{etc,log,pid,state,spool,run}
	: >"$dir/.brolga-cluster"
}

# first_free_port COUNT: the first of COUNT ports in a row nobody listens on,
# below the range the kernel hands out to srun and friends, and no other cluster
# was given; a cluster that starts listens on its own only later.
first_free_port() { locked reserve_ports "$1"; }

reserve_ports() {
	local count=$1 try first used
	used=$(
		ss -Hltn | awk '{sub(/.*:/, "", $4); print $4}'
		cat "$registry_of_clusters"/*.ports 2>/dev/null || true
	)
	for ((try = 0; try < 100; try++)); do
		first=$((20000 + (RANDOM % 110) * 100))
		! awk -v a="$first" '$1 >= a && $1 < a + 100 {hit = 1} END {exit !hit}' <<<"$used" || continue
		seq "$first" $((first + count - 1)) >>"$registry_of_clusters/$(cluster_id).ports"
		printf '%s\n' "$first"
		return
	done
	die "find $count free ports: none"
}

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds.
wait_for() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || {
			say "no sign of $what" >&2
			return 1
		}
		sleep 0.1
	done
}

# start NAME COMMAND...: in the background, free of this terminal, with a pid file.
start() {
	local name=$1
	shift
	setsid "$@" </dev/null >"$dir/log/$name.log" 2>"$dir/log/$name.err" &
	printf '%s\n' "$!" >"$dir/pid/$name.pid"
}

print_daemons() {
	local file
	for file in "$dir"/pid/*.pid; do
		[[ -s $file ]] || continue
		if is_ours "$(basename "$file" .pid)"; then
			say "$(basename "$file" .pid) runs ($(<"$file"))"
		else
			say "$(basename "$file" .pid) is dead"
		fi
	done
}

# Not the registries' access logs, which are for tests that count requests, and
# little of what registries say besides: most of it is no error.
print_log_tails() {
	local file lines
	for file in "$dir"/log/*; do
		[[ -s $file && $file != *registry.log ]] || continue
		lines=20
		[[ $file != *registry.err ]] || lines=2
		printf '==> %s <==\n' "$(basename "$file")"
		tail -n "$lines" "$file" | cut -c 1-300
	done
}
