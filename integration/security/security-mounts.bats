#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Mounts are made by root for a user who chooses the sources, the destinations
# and, with the image, the paths in between. The user must get nothing that way
# that they could not reach before, and root must make nothing on the host.

load ../lib/helpers
load ../lib/images

# A fresh directory for each test: in the user's home, and one of root's that
# everybody can read and nobody else can write to.
setup() {
	mark_logs
	mine=$user_home/mounts
	as_user mkdir "$mine" "$mine/x"
	theirs=$(mktemp -d /var/tmp/brolga-theirs.XXXXXX)
	chmod 0755 "$theirs"
	echo theirs >"$theirs/file"
	mkdir -m 0700 "$theirs/private"
	mkdir -m 0755 "$theirs/private/inner"
	echo secret >"$theirs/private/inner/file"
}

teardown() {
	dump_logs_on_failure
	[[ -z ${bystander:-} ]] || kill "$bystander"
	rm -rf "$mine" "$theirs"
}

# The host's mount table, less what other clusters of this machine mount.
theirs_unchanged() {
	run_ok find "$theirs" -mindepth 1 -printf '%P\n'
	[[ $(sort <<<"$output") == $'file\nprivate\nprivate/inner\nprivate/inner/file' ]] || fail "$output"
}

@test "a source the user cannot reach is refused, and readable ones beside it do not help" {
	for source in "$theirs/private/inner" "$theirs/private/inner/file" "$theirs/private/none" /root/x; do
		run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$theirs:/mnt,$source:/srv" true
		expect_line "brolga: error: mount $source: user $BROLGA_TEST_USER may not reach it: permission denied"
	done
	run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$theirs:/mnt" ls /mnt/private
	expect_match 'Permission denied'
	nodes_idle
}

@test "a source the user cannot reach is not reached through a symbolic link" {
	as_user ln -s "$theirs/private/inner" "$mine/link"
	run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$mine/link:/mnt" true
	expect_line "brolga: error: mount $mine/link: user $BROLGA_TEST_USER may not reach it: permission denied"
}

@test "a source is not reached through other users' processes, nor through the helper's" {
	(cd "$theirs/private/inner" && exec sleep 60) 3>&- &
	bystander=$!
	retry 5 test "$(readlink /proc/$bystander/cwd)" = "$theirs/private/inner"
	for source in "/proc/$bystander/cwd" "/proc/$bystander/root" "/proc/$bystander/cwd/file"; do
		run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$source:/mnt" true
		expect_line "brolga: error: mount $source: user $BROLGA_TEST_USER may not reach it: permission denied"
	done
	# Some of these numbers are open in the helper, whatever they are.
	for source in /proc/self/fd/{0..12} /proc/self/cwd /proc/self/root /proc/self/ns/mnt; do
		echo "$source:/srv${source##*/}"
	done | paste -sd, >"$BATS_TEST_TMPDIR/mounts"
	run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$(<"$BATS_TEST_TMPDIR/mounts")" true
	for source in /proc/self/fd/0 /proc/self/cwd /proc/self/root /proc/self/ns/mnt; do
		expect_match "mount $source: too many levels of symbolic links"
	done
}

@test "the user's cache is not read through other users' processes" {
	local job config=$BROLGA_CLUSTER_DIR/etc/brolga.toml
	cp -p "$config" "$BATS_TEST_TMPDIR/brolga.toml"
	printf 'cache = "{home}/mounts/cache"\n' | cat - "$BATS_TEST_TMPDIR/brolga.toml" >"$config"
	run_ok as_user sbatch --parsable --hold -o job.out --container-image="$BROLGA_TEST_SMALL_IMAGE" --wrap true
	job=${lines[-1]}
	cp -r "$mine/cache/." "$theirs/private/inner"
	chmod -R a+rX "$theirs/private/inner"
	(cd "$theirs/private/inner" && exec sleep 60) 3>&- &
	bystander=$!
	rm -r "$mine/cache"
	as_user ln -s "/proc/$bystander/cwd" "$mine/cache"
	scontrol release "$job"
	run retry 20 job_ended "$job"
	cp -p "$BATS_TEST_TMPDIR/brolga.toml" "$config"
	((status == 0))
	run_ok as_user cat job.out
	expect_match 'brolga: error: get image .*permission denied$'
}

@test "no mount lets a setuid bit or a device node work" {
	new_image
	cp "$(command -v id)" "$mine/x/id"
	chmod 4755 "$mine/x/id"
	mknod -m 0666 "$mine/x/zero" c 1 5
	mknod -m 0666 "$image/zero" c 1 5
	push_image security-nodes:1
	for option in --container-writable --container-readonly; do
		run_ok crun --container-image="$ref" "$option" --container-mounts="$mine/x:/mnt/x,/dev:/mnt/dev" sh -c '
			for f in /zero /mnt/x/zero /mnt/dev/zero; do
				(: <$f) 2>/dev/null && echo "opened $f"
			done
			(: </dev/null) && echo "usual devices work"
			cat /proc/self/mountinfo'
		expect_line "usual devices work"
		refute_match '^opened'
		# Fields of mountinfo: 5 is the mount point, 6 the flags. The container's own
		# /dev has devices; what is below /proc and /sys is the kernel's.
		run_ok awk '$4 ~ /^\// && $5 !~ /^\/(proc|sys)\// && ($6 !~ /nosuid/ || ($6 !~ /nodev/ && $5 !~ /^\/dev($|\/)/))' <<<"$output"
		[[ -z $output ]] || fail "$option: $output"
	done
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$mine/x:/mnt" sh -c 'ls -l /mnt/id; /mnt/id -u; /mnt/id -u -r'
	expect_match '^-rwsr-xr-x .* root '
	[[ ${lines[*]:1} == "$(id -u "$BROLGA_TEST_USER") $(id -u "$BROLGA_TEST_USER")" ]]
}

@test "mounts below a mounted directory lose the setuid bit too" {
	mkdir "$theirs/below"
	mount -t tmpfs -o suid,dev,mode=0755 brolga-theirs "$theirs/below"
	run crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$theirs:/mnt/t" grep /mnt/t/below /proc/self/mountinfo
	umount "$theirs/below"
	rmdir "$theirs/below"
	((status == 0))
	expect_match ' /mnt/t/below rw,nosuid,nodev'
}

@test "the container's /dev has no disk" {
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" find /dev -path /dev/shm -prune -o '(' -type b -o -name 'loop*' -o -name kmsg -o -name mem ')' -print
	[[ -z $output ]] || fail "$output"
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" sh -c 'ls -d /dev/null /dev/zero /dev/urandom /dev/shm /dev/pts /dev/fd /dev/stdin'
	((${#lines[@]} == 7))
}

@test "nothing is mounted over /, /proc, /sys and /dev" {
	local before
	before=$(last_job)
	for target in / /proc /proc/self /sys /sys/fs/cgroup /dev /dev/ //proc /mnt/../proc /./sys/..; do
		run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$mine:$target" true
		expect_match 'brolga: error: --container-mounts: destination /[a-z/]* is taken: choose another$'
		((${#lines[@]} == 1))
	done
	[[ $(last_job) == "$before" ]]
}

@test "a destination stays inside the container, whatever dots and links it has" {
	new_image
	ln -s /../../../../etc "$image/dots"
	ln -s ../../../../../etc "$image/mnt/dots"
	ln -s "$theirs" "$image/theirs"
	mkdir -p "$image$theirs"
	push_image security-links:1
	run_ok crun --container-image="$ref" \
		--container-mounts="$mine/x:/dots/brolga-a,$mine/x:/mnt/dots/brolga-b,$mine/x:/theirs/brolga-c,$mine/x:/../../../etc/brolga-d" \
		sh -c "ls -d /etc/brolga-*; ls $theirs"
	[[ $output == $'/etc/brolga-a\n/etc/brolga-b\n/etc/brolga-d\nbrolga-c' ]] || fail "$output"
	run_fails ls -d /etc/brolga-*
	theirs_unchanged
	run_ok ls -A "$mine/x"
	[[ -z $output ]]
}

@test "a mount point that is missing on the host is made as the user or not at all" {
	run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$theirs:/mnt/e,$mine/x:/mnt/e/newdir" true
	expect_line "brolga: error: mount $mine/x at /mnt/e/newdir: make mount point newdir: permission denied"
	run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$theirs:/mnt/e,/etc/hostname:/mnt/e/a/b" true
	theirs_unchanged
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" \
		--container-mounts="$mine/x:$mine/new/dir,/etc/hostname:$mine/file" \
		sh -c "test -d $mine/new/dir && cat $mine/file"
	[[ $output == "$(</etc/hostname)" ]]
	run_ok stat -c '%n %U' "$mine/new" "$mine/new/dir" "$mine/file"
	[[ $(sort <<<"$output") == "$mine/file $BROLGA_TEST_USER"$'\n'"$mine/new $BROLGA_TEST_USER"$'\n'"$mine/new/dir $BROLGA_TEST_USER" ]] || fail "$output"
}

@test "a mount point behind a directory of the host that the user cannot pass is not told of" {
	local there missing
	there=$(crun --nodelist=n1 --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$theirs:/mnt,$mine/x:/mnt/private/inner" true 2>&1 | grep -o 'brolga: .*' || true)
	missing=$(crun --nodelist=n1 --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$theirs:/mnt,$mine/x:/mnt/private/other" true 2>&1 | grep -o 'brolga: .*' || true)
	[[ $there == *permission\ denied* && $there == "${missing/other/inner}" ]] || fail "$there"$'\n'"$missing"
	theirs_unchanged
	# The image's own are no secret.
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts="$mine/x:/root/y" grep -c ' /root/y ' /proc/self/mountinfo
}

@test "an image whose /proc, /sys or /dev is a link makes nothing on the host" {
	for name in proc sys dev; do
		new_image
		ln -s "/mnt/e/made-by-$name" "$image/$name"
		push_image "security-$name:1"
		run_fails crun --container-image="$ref" --container-mounts="$theirs:/mnt/e" true
		expect_line "brolga: error: the image's /$name is not a directory"
		theirs_unchanged
	done
	nodes_idle
}

@test "an image with a link to / cannot have its root mounted over" {
	new_image
	ln -s / "$image/x"
	push_image security-root:1
	for source in "$theirs" "$mine/x"; do
		run_fails crun --container-image="$ref" --container-mounts="$source:/x" true
		expect_line "brolga: error: mount $source at /x: that is the container's root directory"
	done
	theirs_unchanged
	run_ok ls -A "$mine/x"
	[[ -z $output ]] || fail "$output"
}

@test "an image's WORKDIR is not made on the host" {
	new_image
	push_image --workdir /mnt/e/workdir security-workdir:1
	run_ok crun --container-image="$ref" --chdir=/tmp --no-container-mount-home --container-mounts="$theirs:/mnt/e" sh -c pwd
	expect_match '^(/tmp|/)$'
	theirs_unchanged
	run_ok crun --container-image="$ref" --chdir=/var/tmp --no-container-mount-home sh -c pwd
	[[ $output == /mnt/e/workdir ]] || fail "$output"
}

@test "nothing of a container appears in the host's mount table" {
	local job
	note_host_mounts
	run_ok as_user sbatch --parsable -o /dev/null --container-image="$BROLGA_TEST_IMAGE" \
		--container-mounts="$mine/x:/mnt/e" --wrap "touch $mine/x/started; sleep 200"
	job=$output
	retry 20 test -e "$mine/x/started"
	expect_no_new_host_mounts
	squeue --noheader --job "$job" --states RUNNING --format %i | grep -qx "$job" || fail "the job has ended"
	scancel "$job"
	expect_no_leftovers
}

@test "what is mounted on the host later appears in the container, and not the other way" {
	mkdir "$theirs/later"
	mount --bind "$theirs" "$theirs"
	mount --make-shared "$theirs"
	run_ok as_user sbatch --parsable -o job.out --container-image="$BROLGA_TEST_IMAGE" \
		--container-mounts="$theirs:/mnt/t" --wrap \
		"touch $mine/x/started; until [ -e /mnt/t/later/seen ]; do sleep 0.1; done; touch $mine/x/seen"
	retry 20 test -e "$mine/x/started"
	mount -t tmpfs brolga-theirs "$theirs/later"
	touch "$theirs/later/seen"
	run retry 10 test -e "$mine/x/seen"
	umount "$theirs/later"
	umount "$theirs"
	scancel --user "$BROLGA_TEST_USER"
	((status == 0))
	expect_no_leftovers
}
