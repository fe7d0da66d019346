#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# OCI hooks under job_container/tmpfs, where a first container may be dropped.

load ../lib/helpers
load ../lib/images

teardown() {
	dump_logs_on_failure
	restore_site_config
	rm -rf "$BROLGA_CLUSTER_DIR/hooks"
}

# hook SCRIPT [STAGE]: all steps run it at createContainer, or another stage.
hook() {
	dir=$BROLGA_CLUSTER_DIR/hooks
	mkdir "$dir"
	printf '#!/bin/bash\n%s\n' "$1" >"$dir/program"
	chmod 0755 "$dir/program"
	jq -n --arg path "$dir/program" --arg stage "${2:-createContainer}" '{version: "1.0.0", hook: {path: $path}, when: {always: true}, stages: [$stage]}' >"$dir/hook.json"
	site_config "hooks.directories = [\"$dir\"]"
}

@test "external hook: one that fails is named, whatever container was tried" {
	hook 'echo "no such device"; exit 1'
	for _ in {1..5}; do
		run_fails crun -n2 --container-image="$BROLGA_TEST_IMAGE" true
		expect_line "brolga: error: start container: hook $dir/hook.json: createContainer: program: no such device (exit status 1)"
	done
	expect_no_leftovers
	nodes_idle
}

@test "external hook: the container that tasks get has what it mounts, once" {
	hook 'mount -t tmpfs inside "$(jq -r .root.path config.json)/mnt"'
	run_ok crun -n2 --container-image="$BROLGA_TEST_IMAGE" grep -c ' /mnt ' /proc/self/mounts
	(($(grep -cx 1 <<<"$output") == 2)) || fail "$output"
	expect_no_leftovers
	nodes_idle
}

@test "external hook: at poststop it runs once, whichever container the tasks had" {
	hook 'jq -r .id >>"${0%/*}/ended"' poststop
	run_ok crun -N2 -n4 --container-image="$BROLGA_TEST_IMAGE" true
	retry 10 ended_twice || fail "$(cat "$dir/ended")"
	run_ok crun -w n1 --container-image="$BROLGA_TEST_IMAGE" true
	retry 10 test -s "$dir/ended"
	sleep 0.5
	(($(wc -l <"$dir/ended") == 3)) || fail "$(cat "$dir/ended")"
	expect_no_leftovers
	nodes_idle
}

ended_twice() { [[ -e $dir/ended ]] && (($(wc -l <"$dir/ended") == 2)); }
