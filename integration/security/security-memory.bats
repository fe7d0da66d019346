#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# The helper runs as root and outside the limits of the job: what users and images give it
# to read must not make it take much memory. The most that it may have is 64 MiB.

load ../lib/helpers
load ../lib/images

setup_file() {
	bats_require_minimum_version 1.5.0
	helper=$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-helper
	cc -O2 -Wall -Wextra -Werror -o "$BATS_FILE_TMPDIR/peak" "$repo/integration/programs/peak.c"
	mv "$helper" "$helper.real"
	cp "$BATS_FILE_TMPDIR/peak" "$helper"
	sed "s,^PlugStackConfig=.*,PlugStackConfig=/dev/null," "$SLURM_CONF" >"$user_home/no-plugin.conf"
	chmod 644 "$user_home/no-plugin.conf"
	as_user brolga pull --quiet "$BROLGA_TEST_IMAGE" >/dev/null
	crun --container-image="$BROLGA_TEST_IMAGE" true # is converted once
}

teardown_file() {
	helper=$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-helper
	mv "$helper.real" "$helper"
	rm -f "$helper.peaks" "$helper.limit" "$user_home/no-plugin.conf"
}

setup() {
	mark_logs
	helper=$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-helper
	rm -f "$helper.peaks"
}

teardown() {
	dump_logs_on_failure
	rm -f "$helper.limit"
	restore_site_config
	[[ ! -e $BATS_TEST_TMPDIR/index.json ]] || cp -p "$BATS_TEST_TMPDIR/index.json" "$user_home/.cache/brolga/index.json"
}

has_peak() { grep -q '^step ' "$helper.peaks" 2>/dev/null; }

# expect_small: each helper of a step had at most 64 MiB, and a helper there was.
expect_small() {
	local verb kibibytes
	retry 30 has_peak || fail "no helper has ended"
	while read -r verb kibibytes _; do
		[[ $verb != step ]] || ((kibibytes <= 65536)) || fail "the helper had $kibibytes KiB"
	done <"$helper.peaks"
}

# without_plugin NAME=VALUE... COMMAND...: srun of a user who does not let the plugin look at
# anything; the node reads the options from the environment.
without_plugin() {
	as_user env SLURM_CONF="$user_home/no-plugin.conf" "$@"
}

@test "memory: an ordinary step takes little" {
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" true
	expect_small
}

@test "memory: a short list of addresses stands for no gigabyte" {
	addresses=$("$repo/integration/programs/hostile-files" addresses)
	run_ok as_user env BROLGA_STEP_ADDRESSES="$addresses" srun --container-image="$BROLGA_TEST_IMAGE" true
	expect_small
}

@test "memory: many hostile libraries are refused with one line" {
	local n paths=()
	new_image
	mkdir -p "$image/h"
	for n in {1..60}; do
		"$repo/integration/programs/hostile-files" library "$image/h/libmpich.so.$n"
		mv "$image/h/libmpich.so.$n" "$image/h/$n"
		paths+=("/h/$n")
	done
	"$repo/integration/programs/hostile-files" cache "$image/etc/ld.so.cache" libmpich.so "${paths[@]}"
	push_image hostile-libraries
	run_ok crun --container-image="$ref" sh -c ls # is converted
	retry 30 has_peak
	rm -f "$helper.peaks"
	site_config "[[mpi]]
		name = 'here'
		libraries = ['/usr/lib/x86_64-linux-gnu/libmpich.so.12']"
	run_fails crun --container-image="$ref" --container-mpi=here sh -c ls
	expect_match 'brolga: error: .*read the image.s library /h/[0-9]+: the names in its tables are too large: the limit is 64 KiB$'
	(($(grep -c 'brolga: error: ' <<<"$output") == 1)) || fail "not one line: $output"
	expect_small
	nodes_idle
}

@test "memory: an index of a million annotations is refused with one line" {
	as_user cp -p "$user_home/.cache/brolga/index.json" "$user_home/index.json"
	mv "$user_home/index.json" "$BATS_TEST_TMPDIR/index.json"
	"$repo/integration/programs/hostile-files" index "$BATS_TEST_TMPDIR/hostile" 1300000
	as_user cp "$BATS_TEST_TMPDIR/hostile" "$user_home/.cache/brolga/index.json" ||
		install -o "$BROLGA_TEST_USER" "$BATS_TEST_TMPDIR/hostile" "$user_home/.cache/brolga/index.json"
	run_fails without_plugin BROLGA_CONTAINER_IMAGE="$BROLGA_TEST_IMAGE" srun true
	expect_match 'brolga: error: .*index.json: a descriptor is too large: the limit is 64 KiB$'
	expect_match 'brolga: hint: .*remove your image cache'
	expect_small
	nodes_idle
}

@test "memory: thousands of mounts take little" {
	mounts=$("$repo/integration/programs/hostile-files" mounts)
	run_fails without_plugin BROLGA_CONTAINER_IMAGE="$BROLGA_TEST_IMAGE" BROLGA_CONTAINER_MOUNTS="$mounts" srun true
	expect_small
	nodes_idle
}

@test "memory: an image with a huge configuration is refused with one line" {
	local n labels=()
	new_image
	for n in {1..12}; do
		labels+=(--label "l$n=$(head -c 100000 /dev/zero | tr '\0' x)")
	done
	push_image "${labels[@]}" hostile-labels
	run_fails crun --container-image="$ref" sh -c ls
	expect_match 'brolga: error: .*the image.s configuration \(environment, command and labels\): too large: the limit is 1 MiB$'
	expect_match 'brolga: hint: build the image with fewer and shorter variables and labels$'
	nodes_idle
}

@test "memory: a helper that runs out of memory says so, and drains no node" {
	echo $((70 << 20)) >"$helper.limit"
	run_fails crun --container-image="$BROLGA_TEST_IMAGE" true
	expect_match 'brolga: error: the helper has run out of memory: its limit is 256 MiB$'
	expect_match 'brolga: hint: something that this step uses is too large'
	rm -f "$helper.limit"
	nodes_idle
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" true
}

@test "memory: only the helper is limited, not what it starts" {
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" sh -c 'ulimit -d'
	expect_line unlimited
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" --container-unshare=pid sh -c 'sleep 1; ulimit -d'
	expect_line unlimited
}
