#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# brolga run: the site's hooks and devices, without privilege.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images
load ../lib/run
load ../lib/gpu

setup() {
	gpu_setup
	dir=$BROLGA_CLUSTER_DIR/hooks
	mkdir -p "$dir"
}

teardown() {
	gpu_teardown
	restore_site_config
	rm -rf "$BROLGA_CLUSTER_DIR/hooks"
}

# hook STAGE: a hook of the site's whose program is standard input.
hook() {
	cat >"$dir/program"
	chmod 0755 "$dir/program"
	jq -n --arg path "$dir/program" --arg stage "$1" '{version: "1.0.0", hook: {path: $path}, when: {always: true}, stages: [$stage]}' >"$dir/10-test.json"
	site_config "hooks.directories = [\"$dir\"]"
}

@test "run: a hook that is a program runs as the user, and may change the container" {
	hook createContainer <<-'HOOK'
		#!/bin/bash
		root=$(jq -r .root.path config.json)
		mount -t tmpfs hook "$root/mnt" && head -n1 /proc/self/uid_map >"$root/mnt/stamp"
	HOOK
	run_ok brun "$BROLGA_TEST_IMAGE" cat /mnt/stamp
	expect_match "^ +0 +$(id -u "$BROLGA_TEST_USER") +1$"
	expect_nothing_left
}

@test "run: a hook that needs the host's root fails, and the container with it" {
	hook createRuntime <<-'HOOK'
		#!/bin/bash
		echo 1 >/proc/sys/vm/drop_caches
	HOOK
	run -125 brun "$BROLGA_TEST_IMAGE" true
	expect_match '^brolga: error: .*hook .*Permission denied'
	expect_nothing_left
}

@test "run: a hook for the end of a step is refused, and one that others can change" {
	hook poststop <<<'#!/bin/sh'
	run -125 brun "$BROLGA_TEST_IMAGE" true
	expect_match '^brolga: error: .*poststop.*, which only Slurm sees'
	chmod 0777 "$dir/10-test.json"
	run -125 brun "$BROLGA_TEST_IMAGE" true
	expect_match 'someone other than root could change it'
}

@test "run: a device by its name of CDI is there, with what belongs to it" {
	echo tool >"$cdi/tool"
	specification gpu.json nvidia.com/gpu "{\"env\": [\"VENDOR=yes\"], \"mounts\": [{\"hostPath\": \"$cdi/tool\", \"containerPath\": \"/opt/vendor/tool\", \"options\": [\"ro\"]}]}"
	run_ok brun --device=nvidia.com/gpu=2 "$BROLGA_TEST_IMAGE" sh -c 'ls /dev | grep nvidia; echo "$VENDOR"; cat /opt/vendor/tool'
	expect_line nvidia2
	expect_line yes
	expect_line tool
	# The numbers of variables are the user's: nobody translates them here.
	run_ok as_user env BROLGA_CONFIG="$BROLGA_CONFIG" CUDA_VISIBLE_DEVICES=2 brolga run --device=nvidia.com/gpu=2 "$BROLGA_TEST_IMAGE" sh -c 'echo "numbers $CUDA_VISIBLE_DEVICES"'
	expect_line 'numbers 2'
	run_ok as_user env BROLGA_CONFIG="$BROLGA_CONFIG" CUDA_VISIBLE_DEVICES=2 brolga run --device=nvidia.com/gpu=2 --env=-CUDA_VISIBLE_DEVICES \
		"$BROLGA_TEST_IMAGE" sh -c 'echo "numbers ${CUDA_VISIBLE_DEVICES:-none}"'
	expect_line 'numbers none'
	run -125 brun --device=nvidia.com/gpu=77 "$BROLGA_TEST_IMAGE" true
	expect_match 'nvidia.com/gpu=77'
}
