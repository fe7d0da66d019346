#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# brolga run works without privilege, so a user gains nothing by it that they did
# not have: neither on the host nor in what root has mounted.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images
load ../lib/run

setup() {
	mark_logs
	theirs=$(mktemp -d /var/tmp/brolga-theirs.XXXXXX)
	chmod 0755 "$theirs"
	install -m 0600 /dev/null "$theirs/secret"
	mkdir -m 0700 "$theirs/private"
	touch "$theirs/private/file"
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	rm -rf "$theirs"
}

@test "run: nothing that is installed is setuid or has capabilities" {
	run_ok find "$BROLGA_CLUSTER_DIR/prefix" -perm /6000
	[[ -z $output ]] || fail "$output"
	run_ok getcap -r "$BROLGA_CLUSTER_DIR/prefix"
	[[ -z $output ]] || fail "$output"
}

@test "run: the command has no capability, cannot get any, and a setuid program gains nothing" {
	new_image
	mkdir "$image/setuid"
	cp "$image/bin/busybox" "$image/setuid/busybox"
	chmod 4755 "$image/setuid/busybox"
	push_image run-setuid
	for kind in "" --init --writable; do
		run_ok brun $kind "$ref" sh -c 'cat /proc/self/status; exec /setuid/busybox id -u'
		expect_match '^CapPrm:.*0000000000000000'
		expect_match '^CapBnd:.*0000000000000000'
		expect_match '^NoNewPrivs:.*1'
		expect_line "$(id -u "$BROLGA_TEST_USER")"
	done
}

@test "run: root of the container is the user on the host, without the capabilities that mount" {
	as_user mkdir -p made
	run_ok brun --remap-root --mounts="$theirs:/theirs,./made:/made" "$BROLGA_TEST_IMAGE" sh -c '
		touch /made/file; cat /theirs/secret; ls /theirs/private; mount -t tmpfs none /mnt; umount /theirs
		chroot / true && echo chroot; grep CapEff /proc/self/status; chown 0:0 /theirs/secret; true'
	expect_match 'secret: Permission denied'
	expect_match 'private.*: Permission denied'
	expect_match 'mount: .*(must be superuser|permission denied|Operation not permitted)'
	expect_match 'umount: .*(must be superuser|permission denied|Operation not permitted|not permitted)'
	[[ $(stat -c %U "$user_home/made/file") == "$BROLGA_TEST_USER" ]]
	[[ $(stat -c %U "$theirs/secret") == root ]]
	rm -r "$user_home/made"
}

@test "run: what the user cannot reach is not reached by a mount" {
	run brun --mounts="$theirs/private/file:/x,/root:/y" "$BROLGA_TEST_IMAGE" cat /x
	((status == 125))
	expect_match "mount $theirs/private/file: .*permission denied"
	run_ok brun --mounts=/root:/y "$BROLGA_TEST_IMAGE" sh -c 'ls /y; true'
	expect_match "cannot open directory '/y': Permission denied"
}

@test "run: a new user namespace in the container undoes no mount" {
	run_ok brun --mounts=/usr/share/doc/bash:/etc:ro "$BROLGA_TEST_IMAGE" unshare -Urm sh -c 'umount /etc 2>&1; mount -o remount,bind,rw /etc 2>&1; touch /etc/x 2>&1; true'
	expect_match 'umount: /etc: (not mounted|.*[Ii]nvalid)'
	expect_match '(permission denied|Operation not permitted)'
	expect_match 'Read-only file system'
	run_ok brun --readonly "$BROLGA_TEST_IMAGE" unshare -Urm sh -c 'mount -o remount,bind,rw / 2>&1; touch /x 2>&1; true'
	expect_match 'Read-only file system'
}

@test "run: a squashfs of the user's is never given to the kernel, whatever the site says of steps" {
	new_image
	as_user rm -f mine.sqsh
	mksquashfs "$image" "$user_home/mine.sqsh" -all-root -quiet -no-progress >/dev/null
	chown "$BROLGA_TEST_USER:" "$user_home/mine.sqsh"
	for way in fuse kernel convert; do
		site_config "user_squashfs = '$way'"
		run_ok brun "$user_home/mine.sqsh" sh -c 'cat /proc/self/mountinfo /proc/mounts'
		refute_match ' (squashfs|loop)'
		run_ok brun "$BROLGA_TEST_IMAGE" cat /proc/mounts
		refute_match '/dev/loop'
	done
	[[ -z $(losetup -l -n -O BACK-FILE | grep -F "$user_home" || true) ]]
	rm "$user_home/mine.sqsh"
	expect_nothing_left
}

@test "run: the host's mounts stay as they are, and no other process sees the container's" {
	note_host_mounts
	run_background --writable "$BROLGA_TEST_IMAGE" sh -c 'echo ready; touch /etc/mine; sleep 8731'
	wait_for ready
	expect_no_new_host_mounts
	[[ -z $(ls -A "$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/bundle") ]]
	kill "$command" # which still runs
	wait "$command" || true
	expect_no_new_host_mounts
	expect_nothing_left
}

@test "run: a store that the user may not read stays closed, and others' images with it" {
	run_fails as_user ls "$BROLGA_CLUSTER_DIR/store/sha256"
	run_ok brun "$BROLGA_TEST_IMAGE" true
	# Converted for this user alone, and by nobody else's hand.
	run_ok find "$user_home/.cache/brolga/squashfs" ! -user "$BROLGA_TEST_USER"
	[[ -z $output ]]
	[[ $(stat -c %a "$user_home/.cache/brolga/squashfs") == 7?? ]]
	[[ $(find "$user_home/.cache/brolga/squashfs/sha256" -name '*.squashfs' -perm /077 | wc -l) == 0 ]]
}
