# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# A munged of the cluster's own: key, socket, everything.
# Sourced by scripts/cluster.

start_munge() {
	mkdir -m 0755 "$dir/munge"
	(umask 077 && head -c 128 /dev/urandom >"$dir/munge/key")
	start munged munged --foreground --key-file="$dir/munge/key" \
		--socket="$dir/munge/socket" --pid-file="$dir/munge/munged.pid" \
		--seed-file="$dir/munge/seed"
	wait_for 10 munged munge --socket="$dir/munge/socket" --no-input
}
