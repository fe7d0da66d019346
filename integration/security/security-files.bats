#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Squashfs files and directories belong to users, who may change them at any
# time and make them as they like. No node and no other user may suffer.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	new_image
	echo good >"$image/stamp"
	head -c 2000000 /dev/urandom >"$image/bulk"
	write_squashfs
	as_user rm -f started go
	given
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	rm -rf /root/brolga-test-secret
	retry 20 no_servers || fail "squashfuse still runs"
	nodes_idle
}

write_squashfs() {
	rm -f "$user_home/app.sqsh"
	mksquashfs "$image" "$user_home/app.sqsh" -quiet -no-progress "$@" >/dev/null
	chown "$BROLGA_TEST_USER:" "$user_home/app.sqsh"
}

servers() { pgrep -u "$BROLGA_TEST_USER" -f 'squashfuse_ll -f /proc/self/fd/3'; }

no_servers() { ! servers >/dev/null; }

expect_clean() {
	retry 20 no_servers || fail "squashfuse still runs"
	expect_no_leftovers 20
	nodes_idle
}

# A step that says that it runs, waits for "go", then reads all of the image.
in_background() {
	as_user timeout 60 srun --container-image=./app.sqsh sh -c \
		'touch started; while [ ! -e go ]; do sleep 0.1; done; cat /bulk /stamp >/dev/null && cat /stamp' \
		>"$BATS_TEST_TMPDIR/background" 2>&1 3>&- &
	background=$!
	retry 20 test -e "$user_home/started" || fail "$(<"$BATS_TEST_TMPDIR/background")"
}

background_ends() {
	as_user touch go
	status=0
	wait "$background" || status=$?
	output=$(<"$BATS_TEST_TMPDIR/background")
	((status != 124)) || fail "hangs: $output"
}

works_again() {
	write_squashfs
	run_ok crun --container-image=./app.sqsh cat /stamp
	expect_line good
}

@test "files: one that is cut off while it is mounted costs its own step" {
	in_background
	as_user truncate --size=4096 app.sqsh
	background_ends
	((status != 0))
	works_again
}

@test "files: one that is overwritten while it is mounted costs its own step" {
	in_background
	as_user bash -c 'dd if=/dev/urandom of=app.sqsh bs=4096 seek=1 count=400 conv=notrunc status=none'
	background_ends
	((status != 0))
	works_again
}

@test "files: the end of squashfuse is an error at once, not a hanging step" {
	in_background
	servers | xargs kill -KILL
	background_ends
	((status != 0))
	expect_match 'Transport endpoint is not connected|Software caused connection abort|not found|exit code|Bus error'
	works_again
}

@test "files: squashfuse ends with its step, whatever is killed" {
	local task
	in_background
	as_user scancel --quiet --signal=KILL --user "$BROLGA_TEST_USER"
	wait "$background" || true
	retry 5 no_servers
	as_user rm -f started
	in_background
	task=$(pgrep -u "$BROLGA_TEST_USER" -f '^/bin/sh -c touch started')
	kill -KILL "$(ps -o ppid= -p "$task" | tr -d ' ')" # slurmstepd
	servers >/dev/null
	kill -KILL "$task"
	retry 5 no_servers
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	wait "$background" || true
	expect_clean
}

# A squashfuse whose user stops it before it has answered anything.
stops_itself() {
	as_user tee stopped >/dev/null <<<$'#!/bin/bash\nkill -STOP $$\nexec /usr/bin/squashfuse_ll "$@"'
	chmod 0755 "$user_home/stopped"
	site_config "squashfuse = \"$user_home/stopped\""
}

stopped() { pgrep -u "$BROLGA_TEST_USER" --runstates T -f "^/bin/bash $user_home/stopped"; }

none_stopped() { ! stopped >/dev/null; }

@test "files: a squashfuse that its user has stopped ends with the step that waits for it" {
	local options
	stops_itself
	for options in --container-image=./app.sqsh "--container-image=$BROLGA_TEST_IMAGE --container-mounts=./app.sqsh:/mnt:sqsh"; do
		# shellcheck disable=SC2086 # several words
		as_user timeout 60 srun $options true 3>&- &
		background=$!
		retry 30 stopped >/dev/null || fail "it was not started"
		as_user scancel --quiet --user "$BROLGA_TEST_USER"
		wait "$background" || true
		retry 20 none_stopped || fail "left: $(stopped)"
		expect_clean
	done
	restore_site_config
	works_again
}

@test "files: malformed ones end in an error or in a container, on nodes that live" {
	local size at way
	size=$(stat -c %s "$user_home/app.sqsh")
	for way in fuse convert; do
		site_config "user_squashfs = '$way'"
		# In the superblock, in the middle, and in the tables at the end.
		for at in 12 40 72 $((size / 2)) $((size - 80)); do
			write_squashfs
			dd if=/dev/urandom of="$user_home/app.sqsh" bs=1 count=24 seek="$at" conv=notrunc status=none
			run crun --container-image=./app.sqsh cat /stamp
			((status != 124)) || fail "hangs with $way at $at: $output"
			((status == 0)) || expect_match 'error'
		done
		as_user truncate --size=1000 app.sqsh
		run_fails crun --container-image=./app.sqsh cat /stamp
		expect_match 'brolga: error: '
		[[ -z $(find "$BROLGA_CLUSTER_DIR/store" -name '.tmp-*') ]]
	done
	works_again
}

@test "files: setuid programs and devices of an image are nothing special" {
	local way
	chmod 4755 "$image/bin/busybox"
	mknod "$image/loop0" b 7 0
	mknod "$image/kmsg" c 1 11
	chmod 0666 "$image"/{loop0,kmsg}
	for way in fuse convert kernel; do
		site_config "user_squashfs = '$way'"
		write_squashfs -all-root
		run_ok crun --container-image=./app.sqsh sh -c 'id -u; cat /kmsg; cat /loop0; grep -E "^(Cap(Eff|Bnd)|NoNewPrivs)" /proc/self/status'
		expect_line "$(id -u "$BROLGA_TEST_USER")"
		expect_match '/kmsg: (Permission denied|No such file)|can.t open ./kmsg'
		expect_match '/loop0: (Permission denied|No such file)|can.t open ./loop0'
		expect_match '^CapEff:.0000000000000000$'
		expect_match '^NoNewPrivs:.1$'
	done
	rm -rf "$user_home/root"
	cp -a "$image" "$user_home/root"
	run_ok crun --container-image=dir:root sh -c 'id -u; cat /kmsg; true'
	rm -rf "$user_home/root"
	expect_line "$(id -u "$BROLGA_TEST_USER")"
	expect_match '/kmsg: Permission denied|can.t open ./kmsg'
}

# secret: files that only root may read, and links of the user's to them.
secret() {
	install -d -m 0700 /root/brolga-test-secret /root/brolga-test-secret/root
	cp "$user_home/app.sqsh" /root/brolga-test-secret/app.sqsh
	cp -a "$image/." /root/brolga-test-secret/root
}

@test "files: what a user may not read cannot be an image, also behind a link" {
	local job
	secret
	refused "open /root/brolga-test-secret/app.sqsh: permission denied" --container-image=/root/brolga-test-secret/app.sqsh
	refused "open /root/brolga-test-secret/root: permission denied" --container-image=dir:/root/brolga-test-secret/root
	refused "open $user_home/mine.sqsh: permission denied" --container-image=./mine.sqsh || {
		as_user ln -sfn /root/brolga-test-secret/app.sqsh mine.sqsh
		refused "open $user_home/mine.sqsh: permission denied" --container-image=./mine.sqsh
	}
	# Exchanged when the submitting side has looked.
	for kind in ./mine.sqsh dir:mine; do
		as_user rm -rf mine.sqsh mine job.out
		as_user bash -c 'cp app.sqsh mine.sqsh; mkdir mine'
		job=$(as_user sbatch --parsable --hold --output=job.out --container-image="$kind" --wrap 'cat /stamp')
		as_user rm -rf mine.sqsh mine
		as_user ln -s /root/brolga-test-secret/app.sqsh mine.sqsh
		as_user ln -s /root/brolga-test-secret/root mine
		scontrol release "$job"
		retry 20 job_ended "$job"
		run as_user cat job.out
		expect_match 'permission denied'
		refute_match good
	done
	as_user rm -f mine.sqsh mine
}

@test "files: a directory shows no more of the host than its user may see" {
	mkdir -p "$user_home/root"
	cp -a "$image/." "$user_home/root"
	chown -R "$BROLGA_TEST_USER:" "$user_home/root"
	echo hidden >"$user_home/root/secret"
	chmod 0600 "$user_home/root/secret"
	chown root: "$user_home/root/secret"
	ln -f "$user_home/root/secret" "$user_home/root/etc/passwd"
	ln -sfn /root "$user_home/root/out"
	run_ok crun --container-image=dir:root sh -c 'cat /secret; ls /out; cat /etc/passwd; true'
	refute_match hidden
	expect_match '/secret: Permission denied|can.t open ./secret'
	expect_match '/out: No such file'
	# Also not who is root in the container, whose files are the user's.
	for option in --container-writable --container-remap-root; do
		run_ok crun "$option" --container-image=dir:/ sh -c 'cat /etc/shadow; ls /root; true'
		refute_match '^root:'
		expect_match '/etc/shadow: Permission denied'
		run_ok crun "$option" --container-image=dir:root sh -c 'cat /secret; cat /stamp'
		refute_match hidden
		expect_line good
	done
	rm -rf "$user_home/root"
}
