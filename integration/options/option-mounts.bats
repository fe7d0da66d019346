#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-mounts. What it must not do is in security-mounts.bats.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
	mine=$user_home/mounts
	as_user mkdir -p "$mine/x"
	echo content | as_user tee "$mine/x/file" >/dev/null
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	rm -rf "$mine"
}

mounted() { run_ok crun "${in_image[@]}" --container-mounts="$1" sh -c "$2"; }

@test "mounts: a directory appears at the destination and can be written to" {
	mounted "$mine/x:/mnt/new/place" 'cat /mnt/new/place/file; echo written >/mnt/new/place/out'
	[[ $output == content ]]
	[[ $(<"$mine/x/out") == written ]]
	[[ $(stat -c %U "$mine/x/out") == "$BROLGA_TEST_USER" ]]
}

@test "mounts: without a destination it is the source's path" {
	as_user mkdir "$mine/y"
	mounted "$mine/x" "ls $mine/x"
	expect_line file
	run_ok crun "${in_image[@]}" --no-container-mount-home --container-mounts="$mine/x" sh -c "ls $mine"
	[[ $output == x ]] || fail "$output"
}

@test "mounts: a file takes the place of a file, of a missing one too" {
	mounted "$mine/x/file:/etc/hostname,$mine/x/file:/etc/debian_version" 'cat /etc/hostname /etc/debian_version'
	[[ $output == $'content\ncontent' ]]
}

@test "mounts: several are made in their order" {
	as_user mkdir "$mine/y" "$mine/y/in"
	echo y | as_user tee "$mine/y/file" >/dev/null
	mounted "$mine/y:/mnt/m,$mine/x:/mnt/m/in" 'cat /mnt/m/file /mnt/m/in/file'
	[[ $output == $'y\ncontent' ]]
	mounted "$mine/x:/mnt/m,$mine/y:/mnt/m" 'cat /mnt/m/file'
	[[ $output == y ]]
}

@test "mounts: flags do what they say" {
	printf '#!/bin/sh\necho ran\n' | as_user tee "$mine/x/run" >/dev/null
	chmod 0755 "$mine/x/run"
	run crun "${in_image[@]}" --container-mounts="$mine/x:/mnt/ro:ro,$mine/x:/mnt/rw:rw,$mine/x:/mnt/noexec:ro+noexec+nosuid+nodev" sh -c '
		/mnt/rw/run
		touch /mnt/rw/a && echo rw can be written to
		touch /mnt/ro/a
		/mnt/noexec/run
		grep "/mnt/noexec" /proc/self/mountinfo'
	((status == 0))
	[[ $(grep -cx ran <<<"$output") == 1 ]] || fail "$output"
	expect_line "rw can be written to"
	expect_match "touch: .*/mnt/ro/a.*: Read-only file system"
	expect_match '/mnt/noexec/run: Permission denied'
	expect_match ' /mnt/noexec ro,nosuid,nodev,noexec'
}

@test "mounts: what is mounted below comes along, and cannot be left out to see what it covers" {
	mkdir "$mine/x/below"
	mount -t tmpfs brolga-below "$mine/x/below"
	touch "$mine/x/below/seen"
	run crun "${in_image[@]}" --container-mounts="$mine/x:/mnt/r,$mine/x:/mnt/ro:ro" sh -c '
		ls /mnt/r/below
		touch /mnt/ro/below/new'
	umount "$mine/x/below"
	expect_line seen
	expect_match "touch: .*/mnt/ro/below/new.*: Read-only file system"
}

@test "mounts: a relative source starts at the working directory of the step" {
	run_ok crun "${in_image[@]}" --chdir="$mine" --container-mounts=./x:/mnt/a,../mounts/x:/mnt/b,.:/mnt/c \
		sh -c 'cat /mnt/a/file /mnt/b/file /mnt/c/x/file'
	[[ $output == $'content\ncontent\ncontent' ]] || fail "$output"
	run_ok batch "${in_image[@]}" --chdir="$mine/x" --container-mounts=.:/mnt/a --output=out \
		--wrap 'cat /mnt/a/file'
	[[ $(<"$mine/x/out") == content ]]
}

@test "mounts: a backslash makes commas, colons and backslashes part of a path" {
	as_user mkdir "$mine/"'a,b:c\d e'
	as_user touch "$mine/"'a,b:c\d e/inside'
	mounted "$mine/"'a\,b\:c\\d e:/mnt/a\,b\:c\\d e' "ls /mnt '/mnt/a,b:c\\d e'"
	expect_line 'a,b:c\d e'
	expect_line inside
}

@test "mounts: double quotes do so for a whole path, in options, files and the site's configuration" {
	as_user mkdir "$mine/q a,b:c"
	as_user touch "$mine/q a,b:c/inside"
	mounted "\"$mine/q a,b:c\":\"/mnt/x,y:z\":ro" "ls '/mnt/x,y:z'; touch '/mnt/x,y:z/new' || true"
	expect_line inside
	expect_match 'Read-only file system'
	printf 'image = "%s"\nmounts = ["\\"./q a,b:c\\":/mnt/f"]\n' "$BROLGA_TEST_IMAGE" | as_user tee "$mine/quoted.toml" >/dev/null
	run_ok as_user sh -c "cd $mine && srun --environment=./quoted.toml ls /mnt/f"
	expect_line inside
	site_config "container.mounts = ['\"$mine/q a,b:c\":/mnt/s']"
	run_ok crun "${in_image[@]}" ls /mnt/s
	expect_line inside
	refused '--container-mounts: "\"/a:/b": the closing double quote is missing' --container-image="$BROLGA_TEST_IMAGE" '--container-mounts="/a:/b'
}

@test "mounts: a tmpfs is empty, the user's, as large as it is told and shared by the node" {
	run_ok crun -n2 "${in_image[@]}" --container-mounts=tmpfs:/opt/t:size=1m,tmpfs:/usr/share:mode=0700 sh -c '
		touch /opt/t/$SLURM_PROCID; until [ -e /opt/t/0 ] && [ -e /opt/t/1 ]; do sleep 0.1; done
		[ $SLURM_PROCID = 0 ] || exit 0
		stat -c "%a %U" /opt/t /usr/share; ls -A /usr/share; df -k /opt/t | tail -1
		dd if=/dev/zero of=/opt/t/x bs=64k count=32 2>&1 | grep -o "No space left on device"'
	expect_line "1777 $BROLGA_TEST_USER"
	expect_line "700 $BROLGA_TEST_USER"
	expect_match ' 1024 .* /opt/t$'
	expect_line 'No space left on device'
}

@test "mounts: a tmpfs can be read-only and noexec, and takes mounts below it" {
	run crun "${in_image[@]}" --container-mounts="tmpfs:/opt/t:ro+noexec,tmpfs:/opt/u,$mine/x:/opt/u/below/x" sh -c '
		touch /opt/t/x; cat /opt/u/below/x/file; grep " /opt/t " /proc/self/mountinfo'
	expect_match '/opt/t/x.: Read-only file system'
	expect_line content
	expect_match ' /opt/t ro,nosuid,nodev,noexec'
}

@test "mounts: umount takes back the site's, an earlier one and the home directory" {
	site_config $'[container]\nmounts = ["'"$mine/x"':/mnt/site"]'
	mounted "umount:/mnt/site,umount:$user_home,$mine/x:/mnt/a,umount:/mnt/a,umount:/no/such" \
		"ls /mnt; ls $user_home || echo no home"
	[[ $(grep -v '^ls:' <<<"$output") == 'no home' ]] || fail "$output"
}

@test "mounts: a device works where the host has it, and nowhere else" {
	mknod -m 666 "$mine/null" c 1 3
	mounted "/dev/null:/opt/null,/dev/zero:/opt/zero:nodev,$mine/null:/opt/other" '
		echo x >/opt/null && echo written
		head -c1 /opt/zero || echo refused
		echo x >/opt/other || echo refused'
	expect_line written
	[[ $(grep -cx refused <<<"$output") == 2 ]] || fail "$output"
}

@test "mounts: the content of a squashfs file is mounted, as the site wants it" {
	mkdir "$BATS_TEST_TMPDIR/data"
	echo packed >"$BATS_TEST_TMPDIR/data/file"
	printf '#!/bin/sh\necho as $(id -u)\n' >"$BATS_TEST_TMPDIR/data/run"
	chmod 4755 "$BATS_TEST_TMPDIR/data/run"
	mksquashfs "$BATS_TEST_TMPDIR/data" "$mine/data.sqsh" -quiet -no-progress
	chown "$BROLGA_TEST_USER:" "$mine/data.sqsh"
	sqsh_is() {
		run_ok crun -N2 "${in_image[@]}" --container-mounts="$1:/opt/data:sqsh" sh -c "cat /opt/data/file; touch /opt/data/x || :; grep ' /opt/data ' /proc/self/mountinfo"
		[[ $(grep -cx packed <<<"$output") == 2 ]] || fail "$output"
		expect_match 'Read-only file system'
		expect_match " /opt/data ro,nosuid,nodev.* - $2 "
	}
	sqsh_is "$mine/data.sqsh" fuse.squashfuse
	install -m 0644 "$mine/data.sqsh" "$BROLGA_CLUSTER_DIR/etc/data.sqsh"
	sqsh_is "$BROLGA_CLUSTER_DIR/etc/data.sqsh" squashfs
	site_config 'user_squashfs = "convert"'
	run_fails crun "${in_image[@]}" --container-mounts="$mine/data.sqsh:/opt/data:sqsh" true
	expect_one_error "mount $mine/data.sqsh at /opt/data: this cluster mounts no squashfs files that users can change"
	run_fails crun "${in_image[@]}" --container-mounts="$mine/x/file:/opt/data:sqsh,$mine/none:/opt/none:sqsh" true
	expect_one_error "mount $mine/x/file at /opt/data: $mine/x/file is not a squashfs; mount $mine/none at /opt/none: no such file or directory on this node"
	rm "$BROLGA_CLUSTER_DIR/etc/data.sqsh"
	expect_no_leftovers
}

@test "mounts: a squashfs file that the user cannot read is refused" {
	mksquashfs "$BATS_TEST_TMPDIR" "$mine/closed.sqsh" -quiet -no-progress
	chmod 0600 "$mine/closed.sqsh"
	run_fails crun "${in_image[@]}" --container-mounts="$mine/closed.sqsh:/opt/data:sqsh" true
	expect_match "mount $mine/closed.sqsh at /opt/data: .*permission denied"
}

@test "mounts: the variable does the same, and the option wins" {
	run_ok as_user env BROLGA_CONTAINER_MOUNTS="$mine/x:/mnt/v" srun "${in_image[@]}" cat /mnt/v/file
	[[ $output == content ]]
	run_ok as_user env BROLGA_CONTAINER_MOUNTS="$mine/x:/mnt/v" srun "${in_image[@]}" --container-mounts="$mine/x:/mnt/o" \
		sh -c 'ls /mnt'
	[[ $output == o ]]
}

@test "mounts: the site's come first, and are left out where the source is missing" {
	site_config $'[container]\nmounts = ["'"$mine/x"':/mnt/site:ro", "/no/such:/mnt/none"]'
	as_user mkdir "$mine/y"
	mounted "$mine/y:/mnt/own" 'ls /mnt; cat /mnt/site/file; touch /mnt/site/new || echo read-only'
	[[ $(grep -vE "^touch:" <<<"$output" | sort) == $'content\nown\nread-only\nsite' ]] || fail "$output"
}

@test "mounts: all missing sources are named" {
	run_fails crun "${in_image[@]}" --container-mounts="$mine/none,$mine/x:/mnt,/no/such:/srv" -n2 true
	expect_one_error "mount $mine/none: no such file or directory on this node; mount /no/such: no such file or directory on this node"
	run_fails crun "${in_image[@]}" --container-mounts=./none:/mnt true
	expect_one_error "mount $user_home/none: no such file or directory on this node"
	nodes_idle
}

@test "mounts: a directory and a file do not take each other's place" {
	run_fails crun "${in_image[@]}" --container-mounts="$mine/x:/etc/passwd" true
	expect_one_error "mount $mine/x at /etc/passwd: the destination is a file, the source a directory"
	run_fails crun "${in_image[@]}" --container-mounts="$mine/x/file:/etc" true
	expect_one_error "mount $mine/x/file at /etc: the destination is a directory, the source a file"
	run_fails crun -w n1 "${in_image[@]}" --container-mounts="$mine/x:/etc/debian_version/sub" true
	expect_match "$(stepd n1)"'error: brolga: error: mount .* at /etc/debian_version/sub: '
}

@test "mounts: malformed values are refused before anything is submitted" {
	while IFS='|' read -r value text; do
		refused "--container-mounts$text" "${in_image[@]}" "--container-mounts=$value"
	done <<-'LIST'
		| needs a value: SRC[:DST[:FLAGS]][,...]
		etc|: "etc": source "etc" does not start with / or .
		:/mnt|: ":/mnt": source is empty
		/etc:|: "/etc:": destination "" is not an absolute path
		/etc:mnt|: "/etc:mnt": destination "mnt" is not an absolute path
		./x|: "./x": destination "./x" is not an absolute path
		/etc:/mnt:|: "/etc:/mnt:": unknown flag ""; flags are separated by +
		/etc:/mnt:ro,rw|: "rw": source "rw" does not start with / or .
		/etc:/mnt:suid|: "/etc:/mnt:suid": unknown flag "suid"; flags are separated by +
		/etc:/mnt:dev|: "/etc:/mnt:dev": unknown flag "dev"; flags are separated by +
		/etc:/mnt:bind|: "/etc:/mnt:bind": unknown flag "bind"; flags are separated by +
		/etc:/mnt:ro+rw|: "/etc:/mnt:ro+rw": flags ro and rw contradict each other
		/etc:/mnt:ro:rw|: "/etc:/mnt:ro:rw": want SRC[:DST[:FLAGS]]
		/etc:/mnt,|: "": source is empty
		tmpfs|: "tmpfs": destination "tmpfs" is not an absolute path
		tmpfs:/t:size=big|: "tmpfs:/t:size=big": size "big": want a size such as 2g or 25%
		tmpfs:/t:mode=4755|: "tmpfs:/t:mode=4755": mode "4755": want an octal number such as 0700
		umount:/t:ro|: "umount:/t:ro": unknown flag "ro"; flags are separated by +
		devpts:/t|: "devpts:/t": source "devpts" does not start with / or .
	LIST
	given BROLGA_CONTAINER_MOUNTS=
	refused 'BROLGA_CONTAINER_MOUNTS is empty: unset it or give it a value' "${in_image[@]}"
}
