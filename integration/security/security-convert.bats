#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Images made to use up a node or the store: each ends in one line that names the
# site's limit, and leaves nothing.

load ../lib/helpers
load ../lib/lifecycle

# new_layer: the directory $tree, for the files of the tar file $layer.
new_layer() {
	tree=$BATS_TEST_TMPDIR/tree
	layer=$BATS_TEST_TMPDIR/layer.tar
	rm -rf "$tree"
	mkdir "$tree"
}

# refused TEXT SETTING: $layer is no image for this site.
refused() {
	local ref
	ref=$(mkimage "bomb/$BATS_TEST_NUMBER-$$" "$layer")
	rm "$layer"
	run_fails crun --container-image="$ref" true
	expect_match "brolga: error: convert $ref@sha256:[0-9a-f]*: $1\$"
	expect_match "brolga: hint: an administrator can raise $2 in the site's configuration\$"
	[[ ! -e $(store_file "$ref") ]]
	no_drafts
	expect_clean
}

@test "convert: a gzip bomb ends when the limit for data is reached" {
	site_config 'convert.unpacked = "100m"'
	new_layer
	truncate -s 2G "$tree/zeros"
	tar -C "$tree" -cf "$layer" .
	refused 'layer sha256:[0-9a-f]*: the image has more data than the site allows' convert.unpacked
}

@test "convert: a sparse file counts with its holes" {
	new_layer
	truncate -s 1T "$tree/hole"
	tar -C "$tree" --sparse -cf "$layer" .
	(($(stat -c %s "$layer") < 100000))
	refused 'layer sha256:[0-9a-f]*: the image has more data than the site allows' convert.unpacked
}

@test "convert: an image of very many files ends when their limit is reached" {
	site_config 'convert.files = 50000'
	new_layer
	mkdir "$tree"/d{1..100}
	for ((i = 1; i <= 100; i++)); do
		touch "$tree/d$i"/f{1..500}
	done
	tar -C "$tree" -cf "$layer" .
	refused 'layer sha256:[0-9a-f]*: the image has more files than the site allows' convert.files
}

@test "convert: an image that is too large as a squashfs is not kept" {
	site_config 'convert.squashfs = "5m"'
	new_layer
	head -c 20M /dev/urandom >"$tree/noise"
	tar -C "$tree" -cf "$layer" .
	refused 'the image has more data than the site allows' convert.squashfs
}

@test "convert: one that takes too long is ended" {
	site_config 'convert.timeout = "1s"'
	slow_conversions
	new_layer
	touch "$tree/file"
	tar -C "$tree" -cf "$layer" .
	refused 'run tar2sqfs: not done after 1s' convert.timeout
}

@test "convert: its processes cannot take more memory than the limit" {
	# And take far less.
	ref=$(fresh_image 20)
	slow_conversions
	in_background crun --container-image="$ref" cat /stamp
	conversions_stuck
	for pid in $(our_programs bin/brolga convert) $(tar2sqfs_running); do
		(($(awk '/Max data size/ {print $4}' "/proc/$pid/limits") == 2 << 30))
		(($(awk '/VmHWM/ {print $2}' "/proc/$pid/status") < 256 << 10))
	done
	fast_conversions
	background_ends
	((status == 0)) || fail "$output"
	expect_clean
}

@test "convert: it works where slurmd, and so all it starts, has a low priority" {
	run_fails nice -n 10 runuser -u brolga -- brolga convert --config "$BROLGA_CONFIG" debian:12 sha256:0 3</dev/null
	expect_match 'manifest sha256:0 is corrupt'
}
