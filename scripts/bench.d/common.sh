# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What all benchmarks need: a private cluster, and time. Sourced from the top of
# the repository.

# start_cluster OPTION...: it ends with this process.
start_cluster() {
	local env
	scripts/deps build test
	BROLGA_CLUSTER_DIR=$(mktemp -u /var/tmp/brolga-bench.XXXXXX)
	export BROLGA_CLUSTER_DIR
	trap '[[ ! -e $BROLGA_CLUSTER_DIR ]] || scripts/cluster down >&2' EXIT
	scripts/cluster up "$@" >&2
	env=$(scripts/cluster env)
	eval "$env"
	home=$(getent passwd "$BROLGA_TEST_USER" | cut -d: -f6)
}

as_user() { (cd "$home" && exec runuser -u "$BROLGA_TEST_USER" -- env HOME="$home" "$@"); }

# milliseconds COMMAND...: prints how long it takes.
milliseconds() {
	local start=${EPOCHREALTIME/./}
	"$@" >/dev/null 2>&1
	echo $((${EPOCHREALTIME/./} - start)) | awk '{printf "%.1f\n", $1 / 1000}'
}

median() { sort -n | awk '{t[NR] = $1} END {printf "%.1f", t[int((NR + 1) / 2)]}'; }

machine() {
	printf '%s\n' "$(nproc) cores, $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo) of memory, Linux $(uname -r | cut -d- -f1)"
}
