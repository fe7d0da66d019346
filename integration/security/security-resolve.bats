#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# While root builds a container, the image and all mounts of the container are below
# the site's run directory. No name that a user gives may lead there, and the kernel
# mounts no squashfs because of owners that somebody else than this node's root wrote.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	mine=$user_home/resolve
	as_user mkdir "$mine"
	bundle=$BROLGA_CLUSTER_DIR/run/bundle
	theirs=$(mktemp -d /opt/brolga-theirs.XXXXXX)
	chmod 0755 "$theirs"
	nobodys=$BATS_TEST_TMPDIR/nobodys
	mkdir -p "$nobodys"
	echo evil >"$nobodys/stamp"
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	! mountpoint -q "$theirs/mounted" || umount "$theirs/mounted"
	rm -rf "$mine" "$theirs"
}

# evil_image: an image with a squashfs of root's, as its layer says.
evil_image() {
	new_image
	mksquashfs "$nobodys" "$image/evil.sqsh" -quiet -no-progress -all-root >/dev/null
	mkdir "$image/evil"
	echo evil >"$image/evil/stamp"
	push_image security-resolve:1
	# The directory exists when a step has run.
	run_ok crun --container-image="$ref" pwd
}

@test "a squashfs in an image is no source, whoever owns it and whatever the site allows" {
	local way source
	evil_image
	as_user ln -s "$bundle/lower/evil.sqsh" "$mine/link.sqsh"
	for way in fuse convert kernel; do
		site_config "user_squashfs = '$way'"
		for source in "$bundle/lower/evil.sqsh" "$bundle/rootfs/evil.sqsh" "$mine/link.sqsh" "/dev/..$bundle/lower/evil.sqsh"; do
			run_fails crun --container-image="$ref" --container-mounts="$source:/mnt:sqsh" cat /mnt/stamp
			expect_line "brolga: error: mount $source at /mnt: no such file or directory on this node"
			refute_match evil$
		done
	done
	nodes_idle
}

@test "no source of a mount or device leads into the container that is being made" {
	local source
	evil_image
	as_user ln -s "$bundle/lower" "$mine/link"
	for source in "$bundle"/{lower,rootfs,files,stage,lower/evil,rootfs/evil,files/1} "$mine/link/evil"; do
		run_fails crun --container-image="$ref" --container-mounts="$source:/mnt" cat /mnt/stamp
		expect_line "brolga: error: mount $source: no such file or directory on this node"
	done
	run_fails crun --container-image="$ref" --container-device="/dev/../$bundle/lower/evil:/mnt" cat /mnt/stamp
	expect_match 'want a path below /dev'
	run_fails crun --container-image="dir:$bundle/lower" true
	expect_match "open $bundle/lower: no such file or directory"
	run_fails crun --container-image="$ref" --container-save="$bundle/upper/x.sqsh" true
	expect_match "open $bundle/upper: no such file or directory"
}

@test "a mount that the site names, through a user's link, does not lead there either" {
	evil_image
	as_user ln -s "$bundle/lower/evil" "$mine/link"
	site_config $'[container]\nmounts = ["'"$mine/link"':/mnt/e"]'
	run_ok crun --container-image="$ref" ls -A /mnt/e
	[[ -z $output ]] || fail "$output"
}

@test "a directory that is mounted shows no container that is being made below it" {
	evil_image
	run_ok crun --container-image="$ref" --container-mounts="$BROLGA_CLUSTER_DIR:/mnt/e" sh -c '
		ls /mnt/e/run
		grep " /mnt/e/run/bundle" /proc/self/mountinfo
		cat /mnt/e/run/bundle/lower/stamp /mnt/e/run/bundle/lower/evil/stamp
		true'
	expect_line bundle
	refute_match evil$
	refute_match ' /mnt/e/run/bundle'
}

# expect_type TYPE SOURCE: the squashfs is shown by that file system.
expect_type() {
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$2:/mnt:sqsh" grep ' /mnt ' /proc/self/mountinfo
	expect_match " - $1 "
}

@test "a squashfs of root's is trusted on this node's disks, and on other file systems where the site says so" {
	mkdir "$theirs/mounted" "$theirs/lower" "$theirs/upper" "$theirs/work"
	mksquashfs "$nobodys" "$theirs/disk.sqsh" -quiet -no-progress -all-root >/dev/null
	cp "$theirs/disk.sqsh" "$theirs/lower/root.sqsh"
	expect_type squashfs "$theirs/disk.sqsh"

	mount -t overlay none "$theirs/mounted" -o "lowerdir=$theirs/lower,upperdir=$theirs/upper,workdir=$theirs/work"
	expect_type fuse.squashfuse "$theirs/mounted/root.sqsh"
	ln -s "$theirs/mounted" "$theirs/link"
	for directory in "$theirs/mounted" "$theirs/link"; do
		site_config "trusted_squashfs = ['$directory']"
		expect_type squashfs "$theirs/mounted/root.sqsh"
	done
	site_config "trusted_squashfs = ['$theirs/mounted/ro', '$theirs/lower']"
	expect_type fuse.squashfuse "$theirs/mounted/root.sqsh"
	# What the site says is not about files that others can change.
	site_config "trusted_squashfs = ['$theirs/mounted']"
	chown "$BROLGA_TEST_USER" "$theirs/mounted/root.sqsh"
	expect_type fuse.squashfuse "$theirs/mounted/root.sqsh"
}

@test "a squashfs of root's in a file system that lies in a user's file is not trusted" {
	local file=$BATS_TEST_TMPDIR/disk.ext4
	mksquashfs "$nobodys" "$BATS_TEST_TMPDIR/evil.sqsh" -quiet -no-progress -all-root >/dev/null
	mkdir "$BATS_TEST_TMPDIR/tree" "$theirs/mounted"
	cp "$BATS_TEST_TMPDIR/evil.sqsh" "$BATS_TEST_TMPDIR/tree/evil.sqsh"
	truncate -s 8M "$file"
	mke2fs -q -t ext4 -d "$BATS_TEST_TMPDIR/tree" "$file"
	mount -o loop,ro "$file" "$theirs/mounted"
	expect_type fuse.squashfuse "$theirs/mounted/evil.sqsh"
}
