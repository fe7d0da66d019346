#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A directory as an image can be changed by its user while root mounts in it, and may
# have file systems mounted below it. Root follows no name there that a user has
# exchanged, and what a mount of the host covers stays covered.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	theirs=$(mktemp -d /opt/brolga-theirs.XXXXXX)
	chmod 0755 "$theirs"
	mkdir -m 0700 "$theirs/private"
	mkdir -m 0755 "$theirs/private/inner" "$theirs/open"
	echo secret >"$theirs/private/inner/file"
	new_image
	mkdir -p "$image"/{proc,sys,dev,home,etc}
	touch "$image"/etc/{passwd,group,hosts,resolv.conf}
}

teardown() {
	local at
	dump_logs_on_failure
	restore_site_config
	rm -f "$user_home/swapping"
	stopped | xargs --no-run-if-empty kill -KILL
	[[ -z ${background:-} ]] || wait "$background" || true
	awk -v at="$theirs/" 'index($5, at) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r at; do
		umount --lazy "$at" || true
	done
	rm -rf "$theirs" "$user_home"/{root,stopped,app.sqsh,saved.sqsh,out}
}

# on_disk: the image in $root, of the user's, where overlayfs can have it below.
on_disk() {
	root=$user_home/root
	cp -a "$image" "$root"
	chown -R "$BROLGA_TEST_USER:" "$root"
}

# on_overlays: the same where it cannot: an overlay on an overlay.
on_overlays() {
	mkdir "$theirs"/{t,m1,m2}
	mount -t tmpfs none "$theirs/t"
	mkdir "$theirs"/t/{u1,w1,u2,w2,root}
	mount -t overlay none "$theirs/m1" -o "lowerdir=$theirs/t/root,upperdir=$theirs/t/u1,workdir=$theirs/t/w1"
	mount -t overlay none "$theirs/m2" -o "lowerdir=$theirs/m1,upperdir=$theirs/t/u2,workdir=$theirs/t/w2"
	chmod 0755 "$theirs/t" "$theirs/m1" "$theirs/m2"
	root=$theirs/m2/root
	cp -a "$image" "$root"
	chown -R "$BROLGA_TEST_USER:" "$root"
}

stopped() { pgrep -u "$BROLGA_TEST_USER" --runstates T -f "^/bin/bash $user_home/stopped"; }

# exchange NAME LINK COMMAND...: the step also mounts a squashfs, whose squashfuse stops
# itself, and the helper waits. The user puts a link in the place of a directory of the
# image. The kernel drops the names that it knows. Then squashfuse goes on.
exchange() {
	local name=$1 link=$2
	shift 2
	mksquashfs "$theirs/open" "$user_home/app.sqsh" -quiet -no-progress -noappend >/dev/null
	chown "$BROLGA_TEST_USER:" "$user_home/app.sqsh"
	as_user tee stopped >/dev/null <<<$'#!/bin/bash\nkill -STOP $$\nexec /usr/bin/squashfuse_ll "$@"'
	chmod 0755 "$user_home/stopped"
	site_config "squashfuse = \"$user_home/stopped\""
	CRUN_TIMEOUT=60 crun --no-container-mount-home --container-image="dir:$root" \
		--container-mounts="$theirs:/mnt/e,./app.sqsh:/mnt/e/open:sqsh" "$@" >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
	background=$!
	retry 20 stopped >/dev/null || fail "the helper did not wait: $(<"$BATS_TEST_TMPDIR/out")"
	as_user mv "$root/$name" "$root/$name.old"
	as_user ln -s "$link" "$root/$name"
	sync
	echo 2 >/proc/sys/vm/drop_caches
	stopped | xargs kill -CONT
	wait "$background" || true
	background=
	output=$(<"$BATS_TEST_TMPDIR/out")
	restore_site_config
}

theirs_unchanged() {
	run_ok find "$theirs/open" "$theirs/private" -printf '%P\n'
	[[ $(sort <<<"$output") == $'\n\ninner\ninner/file' ]] || fail "$output"
}

@test "a /dev that its user exchanges for a link shows nothing of the host, whatever the file system" {
	local where
	for where in on_disk on_overlays; do
		"$where"
		exchange dev "$theirs/private/inner" sh -c 'cat /dev/file; ls /dev; echo done'
		refute_match secret
		expect_line null
		expect_line "done"
	done
}

@test "a /proc or /sys that its user exchanges for a link makes nothing on the host" {
	local where name
	for where in on_disk on_overlays; do
		"$where"
		for name in proc sys; do
			exchange "$name" "/mnt/e/made" sh -c 'grep -c . /proc/self/status; ls -d /sys/kernel; echo done'
			expect_line /sys/kernel
			expect_line "done"
			theirs_unchanged
			[[ ! -e $theirs/made ]] || fail "$theirs/made was made"
			as_user rm "$root/$name"
			as_user mv "$root/$name.old" "$root/$name"
		done
	done
}

@test "a directory whose user exchanges names all the time shows nothing of the host" {
	local where name i
	for where in on_disk on_overlays; do
		"$where"
		for name in proc sys dev; do
			as_user ln -s "$theirs/private/inner" "$root/$name.link"
		done
		as_user touch swapping
		as_user python3 - "$root" swapping >"$BATS_TEST_TMPDIR/swap" 2>&1 3>&- <<-'END' &
			import os, sys
			names = [os.path.join(sys.argv[1], n) for n in ("proc", "sys", "dev")]
			while os.path.exists(sys.argv[2]):
			    for n in names:
			        os.rename(n, n + ".old")
			        os.rename(n + ".link", n)
			    for n in names:
			        os.rename(n, n + ".link")
			        os.rename(n + ".old", n)
		END
		background=$!
		for ((i = 0; i < 20; i++)); do
			run crun --no-container-mount-home --container-image="dir:$root" --container-mounts="$theirs:/mnt/e" sh -c 'cat /dev/file /proc/file /sys/file; true'
			refute_match secret
			((status == 0)) || expect_match "the image's /(proc|sys|dev) is not a directory"
		done
		as_user rm swapping
		wait "$background" || fail "$(<"$BATS_TEST_TMPDIR/swap")"
		background=
		theirs_unchanged
	done
	nodes_idle
}

@test "a directory that cannot be below an overlay is shown whole and read-only" {
	on_overlays
	as_user ln -s bin/busybox "$root/link"
	as_user mkdir -m 0700 "$root/closed"
	as_user rm -r "$root/proc" "$root/dev"
	mkdir -m 0700 "$root/roots"
	touch "$root/roots/file"
	run_ok crun --no-container-mount-home --container-image="dir:$root" --container-mounts="$theirs/open:/opt/new/place" sh -c '
		ls -ld / /link /closed /roots /opt/new/place
		ls /roots
		touch /new /etc/new /opt/new
		grep -E " (/|/etc|/closed) " /proc/self/mountinfo'
	expect_match '^drwxr-xr-x .* /$'
	expect_match '^lrwxrwxrwx .* /link -> bin/busybox$'
	expect_match '^drwx------ .* /closed$'
	expect_match "roots: Permission denied|can't open '/roots'"
	(($(grep -c 'Read-only file system' <<<"$output") == 3)) || fail "$output"
	(($(grep -cE ' (/|/etc|/closed) ro,nosuid,nodev' <<<"$output") == 3)) || fail "$output"
	[[ $(stat -c '%U %a' "$root") == "$BROLGA_TEST_USER 755" ]]
}

@test "a directory with too many files at its top, and no overlay, is refused in a line" {
	on_overlays
	as_user bash -c "cd '$root' && touch f{1..1000}"
	run_fails crun --no-container-mount-home --container-image="dir:$root" true
	expect_match 'brolga: error: .* more than 1000 files, and lies on a file system that overlayfs does not take$'
	nodes_idle
}

# covered: an image with mounts of the host, each on something that it covers.
covered() {
	root=$theirs/root
	cp -a "$image" "$root"
	mkdir "$root"/{scratch,data,data/deep,closed,closed/inner,files}
	chmod 1777 "$root/scratch"
	chmod 0700 "$root/closed"
	for at in scratch data/deep closed/inner mnt; do
		echo covered >"$root/$at/covered"
		mount -t tmpfs none "$root/$at"
		chmod "$1" "$root/$at"
		echo shown >"$root/$at/shown"
	done
	chmod 1777 "$root/scratch"
	echo covered >"$root/files/one"
	echo shown >"$theirs/open/one"
	mount --bind "$theirs/open/one" "$root/files/one"
	mkdir "$root/data/deep/nested"
	echo covered >"$root/data/deep/nested/covered"
	mount -t tmpfs none "$root/data/deep/nested"
	echo shown >"$root/data/deep/nested/shown"
}

# shellcheck disable=SC2016 # for the container's shell
look='for f in $(find / -name proc -prune -o -name sys -prune -o -name dev -prune -o -name covered -print -o -name shown -print -o -path /files/one -print); do
	echo "$f $(cat $f)"
done
touch /data/deep/new /scratch/new; ls -l /closed; echo done'

@test "what is mounted below a directory is shown as its user sees it, and what that covers is not" {
	local option
	covered 0755
	ln -s "$root" "$theirs/link"
	for option in --container-writable --container-readonly --container-remap-root; do
		run_ok crun --no-container-mount-home "$option" --container-image="dir:$theirs/link" sh -c "$look"
		expect_line "done"
		refute_match covered
		for file in /scratch/shown /data/deep/shown /data/deep/nested/shown /mnt/shown /files/one; do
			expect_line "$file shown"
		done
		refute_match '/closed/inner/shown'
		expect_match '/data/deep/new: Read-only file system'
		refute_match '/scratch/new: Read-only'
	done
	[[ -e $root/scratch/new && ! -e $root/data/deep/new ]]
}

@test "what a user may not reach below a directory is empty, and shows nothing that is covered" {
	covered 0700
	run_ok crun --no-container-mount-home --container-image="dir:$root" sh -c "$look"
	expect_line "done"
	refute_match covered
	refute_match '/data/deep/shown|/mnt/shown'
	expect_line "/files/one shown"
}

@test "a container of a directory is saved without what was covered in it" {
	covered 0755
	umount "$root/closed/inner"
	rm -r "$root/closed"
	chown -R "$BROLGA_TEST_USER:" "$root"
	run_ok crun --no-container-mount-home --container-image="dir:$root" --container-save=saved.sqsh sh -c 'echo written >/written'
	run_ok unsquashfs -cat "$user_home/saved.sqsh" written
	expect_line written
	run_ok unsquashfs -l "$user_home/saved.sqsh"
	expect_match 'squashfs-root/data/deep$'
	refute_match covered
	refute_match shown
}

@test "what is covered is not shown without an overlay either" {
	local at
	on_overlays
	for at in mnt etc/deep; do
		mkdir -p "$root/$at"
		echo covered >"$root/$at/covered"
		mount -t tmpfs none "$root/$at"
		echo shown >"$root/$at/shown"
	done
	run_ok crun --no-container-mount-home --container-image="dir:$root" sh -c 'cat /mnt/* /etc/deep/*; echo done'
	expect_line shown
	expect_line "done"
	refute_match covered
	run_fails crun --no-container-mount-home --container-image="dir:$root" --container-save=saved.sqsh pwd
	expect_match 'brolga: error: --container-save: something is mounted below the image, at etc/deep, and its file system cannot be below an overlay'
}

@test "a directory below which hundreds of file systems are mounted is an image" {
	local i whole=$theirs/root
	cp -a "$image" "$whole"
	mkdir "$whole"/many
	for ((i = 0; i < 300; i++)); do
		mkdir "$whole/many/$i"
		mount -t tmpfs none "$whole/many/$i"
	done
	touch "$whole/many/299/shown"
	run_ok crun --no-container-mount-home --container-image="dir:$whole" sh -c 'ls /many/299; grep -c " /many/" /proc/self/mountinfo'
	[[ $output == $'shown\n300' ]] || fail "$output"
}

@test "the host's root directory is an image, with what is mounted there" {
	run_ok crun --container-image=dir:/ sh -c "cat '$theirs/open/../private/inner/file'; ls '$BROLGA_CLUSTER_DIR/run/bundle'; cat /proc/self/mountinfo | grep -c ' $BROLGA_CLUSTER_DIR/run/bundle'; ls -d /usr/bin /tmp; echo done"
	refute_match secret
	expect_line 0
	expect_line /usr/bin
	expect_line "done"
	expect_no_leftovers
}

@test "without Slurm and root, what is covered below a directory is not shown either" {
	covered 0755
	run_ok as_user brolga run --no-mount-home "dir:$root" sh -c 'cat /mnt/* /data/deep/* /scratch/*; echo done'
	expect_line shown
	expect_line "done"
	refute_match covered
}
