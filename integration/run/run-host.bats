#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# brolga run on hosts that lack what it needs: one line says what, and a hint what
# to do about it.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images
load ../lib/run

setup_file() {
	load ../lib/helpers
	as_user BROLGA_CONFIG="$BROLGA_CONFIG" brolga run "$BROLGA_TEST_SMALL_IMAGE" >/dev/null
}

# in_host COMMAND: run "brolga run" as the user once root has changed the host by
# COMMAND, for this process alone: in a mount namespace.
in_host() {
	local change=$1
	shift
	run unshare --mount sh -c "$change"' && user=$1 && shift && exec setpriv --reuid="$user" --regid="$user" --init-groups env HOME="$HOME_OF_USER" brolga run "$@"' - "$BROLGA_TEST_USER" "$@"
}

export HOME_OF_USER=$user_home

@test "run: where no user namespaces are allowed, the error names the setting" {
	# The limit is one of each user namespace, too.
	run as_user BROLGA_CONFIG="$BROLGA_CONFIG" unshare --user --map-current-user --keep-caps \
		sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec brolga run "$1"' - "$BROLGA_TEST_SMALL_IMAGE"
	((status == 125))
	expect_line "brolga: error: make a user namespace: No space left on device"
	expect_line "brolga: hint: an administrator allows some: sysctl user.max_user_namespaces=10000"
	expect_nothing_left
}

@test "run: without /dev/fuse the error says so" {
	in_host 'mount -t tmpfs none /mnt && mknod /mnt/null c 1 3 && mount --bind /mnt/null /dev/fuse && chmod 600 /mnt/null' "$BROLGA_TEST_SMALL_IMAGE"
	((status == 125))
	expect_match '^brolga: error: .*open FUSE: .*permission denied'
	expect_line "brolga: hint: an administrator lets users open it: chmod 0666 /dev/fuse"
	expect_nothing_left
}

@test "run: without squashfuse the error says so, and a directory needs none" {
	cp "$BROLGA_CONFIG" "$BATS_TEST_TMPDIR/config.toml"
	echo 'squashfuse = "/usr/bin/no-squashfuse"' >>"$BATS_TEST_TMPDIR/config.toml"
	chmod 644 "$BATS_TEST_TMPDIR/config.toml"
	chmod 755 "$BATS_TEST_TMPDIR" "$BATS_RUN_TMPDIR" 2>/dev/null || true
	run as_user brolga run --config /dev/fd/8 "$BROLGA_TEST_SMALL_IMAGE" 8<"$BATS_TEST_TMPDIR/config.toml"
	((status == 125))
	expect_match '^brolga: error: .*/usr/bin/no-squashfuse is not installed'
	expect_match '^brolga: hint: .*installs squashfuse'
	new_image
	rm -rf "$user_home/tree"
	cp -a "$image" "$user_home/tree"
	chown -R "$BROLGA_TEST_USER:" "$user_home/tree"
	run_ok as_user brolga run --config /dev/fd/8 "dir:$user_home/tree" sh -c 'echo from a directory' 8<"$BATS_TEST_TMPDIR/config.toml"
	expect_line "from a directory"
	rm -rf "$user_home/tree"
	expect_nothing_left
}

@test "run: without tar2sqfs an image that must be converted says so" {
	as_user rm -rf "$user_home/.cache/brolga/squashfs"
	cp "$BROLGA_CONFIG" "$BATS_TEST_TMPDIR/config.toml"
	echo 'tar2sqfs = "/usr/bin/no-tar2sqfs"' >>"$BATS_TEST_TMPDIR/config.toml"
	install -m 0644 "$BATS_TEST_TMPDIR/config.toml" "$user_home/config.toml"
	run as_user brolga run --config "$user_home/config.toml" "$BROLGA_TEST_SMALL_IMAGE"
	rm "$user_home/config.toml"
	((status == 125))
	expect_match '^brolga: error: convert .*no-tar2sqfs: no such file or directory'
	[[ $(find "$user_home/.cache/brolga/squashfs/sha256" -type f | wc -l) == 0 ]]
}

@test "run: no Slurm is needed, nor the owner of a store, nor a store" {
	run_ok as_user env -u SLURM_CONF BROLGA_CONFIG= HOME="$user_home" \
		brolga run "$BROLGA_TEST_SMALL_IMAGE" </dev/null
	expect_line "arg0: /hello"
}
