#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Many nodes want an image at the same time, and share a cache: the registry sees
# one of them.

load ../lib/helpers
load ../lib/images

fleet=256

teardown() {
	dump_logs_on_failure
	rm -rf "$user_home/cache-of-fleet"
}

# pulls N REF: as many processes at once, as the helpers of nodes start them.
pulls() {
	# shellcheck disable=SC2016 # for the other shell
	as_user bash -c '
		for ((i = 0; i < $1; i++)); do
			brolga pull --config "$2" --quiet --if-missing --cache ~/cache-of-fleet "$3" &
			pids+=("$!")
		done
		for pid in "${pids[@]}"; do wait "$pid" || exit; done
	' pulls "$1" "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$2"
}

new_bulk() {
	new_image
	head -c 20000000 /dev/urandom >"$image/bulk"
	ref=$(mkimage "$1" "$image" "$image/bin")
}

@test "fleet: $fleet pulls of an image that nobody has make the requests of one" {
	local one
	new_bulk fleet/one:1
	mark_logs
	run_ok pulls 1 "$ref"
	one=$(registry_requests)
	((one == 5)) # hello, manifest, configuration, two layers
	new_bulk fleet/all:1
	mark_logs
	run_ok pulls "$fleet" "$ref"
	[[ $(sort -u <<<"$output") == "$ref@sha256:"* && ${#lines[@]} == "$fleet" ]] || fail "$output"
	(($(registry_requests) == one)) || fail "$(registry_requests) requests of $fleet, $one of one"
}
