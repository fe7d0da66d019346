#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-save

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	as_user rm -rf saved started
	as_user mkdir saved
	given
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	! mountpoint -q "$user_home/saved" || umount "$user_home/saved"
}

# A small image that all tests change.
prepare() {
	new_image
	for applet in true rm mkfifo chmod cp head ln mv; do
		ln -s busybox "$image/bin/$applet"
	done
	mkdir -p "$image"/data/dir
	echo image | tee "$image"/data/{a,b,dir/c} >/dev/null
	chmod -R a+rwX "$image/data"
	echo mail >"$image/data/mail"
	chown 0:8 "$image/data/mail"
	push_image --keep-owners --entrypoint env "save/$BATS_TEST_NUMBER:1"
	in_image=(--container-image="$ref")
}

saved() { ls -A "$user_home/saved"; }

# listed FILE: mode, owner and name of all files in it.
listed() { unsquashfs -lln "$user_home/saved/$1" | awk '{print $1, $2, $NF}'; }

@test "save: the file runs, with what the step has changed and the image's owners" {
	prepare
	run_ok crun "${in_image[@]}" --container-save=saved/x.sqsh sh -c '
		cd /data; rm a; echo mine >b; rm -r dir; mkdir dir; echo new >dir/n; ln dir/n dir/m
		ln -s /nowhere link; mkfifo fifo; echo secret >shut; chmod 0 shut; cp /bin/busybox busybox'
	[[ $(saved) == x.sqsh && $(stat -c '%U %a' "$user_home/saved/x.sqsh") == "$BROLGA_TEST_USER 644" ]] || fail "$(ls -la "$user_home/saved")"
	id=$(id -u "$BROLGA_TEST_USER")/$(id -g "$BROLGA_TEST_USER")
	run_ok listed x.sqsh
	expect_line "-rw-r--r-- 0/8 squashfs-root/data/mail"
	expect_line "---------- $id squashfs-root/data/shut"
	expect_match "^prw.* $id squashfs-root/data/fifo"
	expect_match '^lrwxrwxrwx .* /nowhere$'
	refute_match 'data/a$|dir/c$'
	run_ok crun --container-image=./saved/x.sqsh /bin/sh -c 'cd /data; cat b dir/n; ls dir; stat -c %h dir/m; /data/busybox true && echo runs; chmod 600 shut && cat shut'
	[[ $output == $'mine\nnew\nm\nn\n2\nruns\nsecret' ]] || fail "$output"
	expect_no_leftovers
}

@test "save: with remapped root what it made is root's, and the image's owners stay" {
	prepare
	run_ok crun "${in_image[@]}" --container-remap-root --container-save="$user_home/saved/x.sqsh" sh -c 'echo mine >/data/mine; rm /data/a; mkdir /new; rm -r /data/dir; mkdir /data/dir'
	run_ok listed x.sqsh
	expect_line "-rw-r--r-- 0/8 squashfs-root/data/mail"
	expect_match '^-rw.* 0/0 squashfs-root/data/mine'
	expect_match '^drwx.* 0/0 squashfs-root/new'
	refute_match "dir/c|data/a$|$(id -u "$BROLGA_TEST_USER")/|65534"
}

@test "save: what is mounted is not in it" {
	prepare
	run_ok crun "${in_image[@]}" --container-mount-home --container-mounts=/etc:/mnt/e,tmpfs:/scratch --container-save=saved/x.sqsh sh -c 'echo x >/scratch/x; ls /mnt/e/passwd'
	run_ok listed x.sqsh
	refute_match '/mnt/e/|/scratch/|squashfs-root/(proc|sys|dev)/|\.bashrc|saved'
	expect_match 'squashfs-root/data/b'
}

@test "save: one node writes, unless each has a name of its own" {
	prepare
	run_ok crun -N2 -n4 "${in_image[@]}" --container-save=saved/one.sqsh sh -c 'echo $SLURM_NODEID >/data/node'
	[[ $(saved) == one.sqsh && $(unsquashfs -cat "$user_home/saved/one.sqsh" data/node) == 0 ]]
	run_ok crun -w n1,n2 -N2 -n4 "${in_image[@]}" --container-save='saved/%j-%s-%n-%N-%%.sqsh' sh -c 'echo $SLURM_NODEID >/data/node; echo $SLURM_JOB_ID'
	job=$(grep -oxE -m1 '[0-9]+' <<<"$output")
	[[ $(saved) == "$job-0-0-n1-%.sqsh"$'\n'"$job-0-1-n2-%.sqsh"$'\n'one.sqsh ]] || fail "$(saved)"
	[[ $(unsquashfs -cat "$user_home/saved/$job-0-1-n2-%.sqsh" data/node) == 1 ]]
}

@test "save: commands end as without it, and the last one waits" {
	prepare
	run crun "${in_image[@]}" --container-save=saved/x.sqsh sh -c 'exit 7'
	((status == 7)) || fail "$status $output"
	run crun "${in_image[@]}" --container-save=saved/y.sqsh sh -c 'kill -USR1 $$'
	expect_match 'task 0: User defined signal 1'
	run_ok crun "${in_image[@]}" --container-init --container-entrypoint --container-save=saved/z.sqsh A=b sh -c 'echo $A $(id -u)'
	expect_line "b $(id -u "$BROLGA_TEST_USER")"
	[[ $(saved) == $'x.sqsh\ny.sqsh\nz.sqsh' ]] || fail "$(saved)"
	expect_no_leftovers
	nodes_idle
}

@test "save: a named container, and the file that the step runs from" {
	prepare
	run_ok as_user salloc --quiet -N1 sh -c "
		srun ${in_image[*]} --container-name=x sh -c 'echo kept >/data/kept'
		srun --container-name=x --container-save=saved/x.sqsh rm /data/a
		srun --container-image=./saved/x.sqsh --container-save=saved/x.sqsh /bin/sh -c 'echo again >/data/again'"
	run_ok crun --container-image=./saved/x.sqsh /bin/ls /data
	[[ $(tr '\n' ' ' <<<"$output") == 'again b dir kept mail ' ]] || fail "$output"
	[[ $(saved) == x.sqsh ]]
	expect_no_leftovers
}

@test "save: without room the task fails, with words, and the old file stays" {
	prepare
	mount -t tmpfs -o "size=1m,uid=$(id -u "$BROLGA_TEST_USER")" tmpfs "$user_home/saved"
	as_user sh -c 'echo old >saved/x.sqsh'
	run crun "${in_image[@]}" --container-save=saved/x.sqsh sh -c 'head -c 4000000 /dev/urandom >/data/bulk && echo made'
	((status == 1)) || fail "$status $output"
	expect_line made
	expect_line "brolga: error: save the container to $user_home/saved/x.sqsh: no space left on device"
	[[ $(saved) == x.sqsh && $(<"$user_home/saved/x.sqsh") == old ]]
	expect_no_leftovers
	nodes_idle
}

@test "save: of a directory that is an image it is what the user may read" {
	prepare
	echo secret >"$image/secret"
	chmod 0600 "$image/secret"
	chmod 0755 "$BATS_TEST_TMPDIR" "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR" "$BATS_SUITE_TMPDIR" 2>/dev/null || true
	run crun --container-image="dir:$image" --container-save=saved/x.sqsh /bin/sh -c true
	((status == 1)) || fail "$status $output"
	expect_match 'brolga: error: save the container to .*/saved/x.sqsh: (save|open) /secret: .*permission denied'
	[[ -z $(saved) ]]
}

@test "save: scancel while it is written leaves nothing of it" {
	prepare
	slow_writer
	as_user srun "${in_image[@]}" --container-save=saved/x.sqsh true 3>&- &
	retry 20 writes || fail "nothing is written"
	as_user scancel --user "$BROLGA_TEST_USER"
	wait "$!" || true
	[[ -z $(saved) ]] || retry 5 nothing_saved || fail "$(saved)"
	retry 5 no_writer || fail "still runs"
	expect_no_leftovers
	nodes_idle
}

@test "save: after SIGKILL of the helper the user is told, and nothing is left" {
	prepare
	slow_writer
	as_user srun "${in_image[@]}" --container-save=saved/x.sqsh true >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
	step=$!
	retry 20 writes || fail "nothing is written"
	pkill -KILL -f "^$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-helper step"
	status=0
	wait "$step" || status=$?
	output=$(<"$BATS_TEST_TMPDIR/out")
	((status == 1)) || fail "$status $output"
	expect_line 'brolga: error: the container was not saved: the helper has ended'
	retry 5 nothing_saved || fail "$(saved)"
	retry 5 no_writer || fail "still runs"
	nodes_idle
}

@test "save: after SIGKILL of helper and writer nothing is left" {
	prepare
	slow_writer
	as_user srun "${in_image[@]}" --container-save=saved/x.sqsh true >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
	step=$!
	retry 20 writes || fail "nothing is written"
	pkill -KILL -f "^$BROLGA_CLUSTER_DIR/prefix/(libexec/brolga/brolga-helper step|bin/brolga save)"
	wait "$step" || true
	retry 5 no_writer || fail "still runs"
	nothing_saved || fail "$(saved)"
	expect_no_leftovers
	nodes_idle
}

slow_writer() {
	cat >"$BATS_FILE_TMPDIR/tar2sqfs" <<-'SCRIPT'
		#!/bin/bash
		echo begun >"${!#}"
		exec sleep 60.4711
	SCRIPT
	chmod 0755 "$BATS_FILE_TMPDIR/tar2sqfs"
	# The conversion has been done by then.
	run_ok crun "${in_image[@]}" true
	install "$BATS_FILE_TMPDIR/tar2sqfs" "$user_home/tar2sqfs"
	chmod o+x "$user_home"
	site_config "tar2sqfs = \"$user_home/tar2sqfs\""
}

writes() { pgrep -u "$BROLGA_TEST_USER" -f '^sleep 60.4711' >/dev/null; }
nothing_saved() { [[ -z $(saved) ]]; }
no_writer() { ! pgrep -u "$BROLGA_TEST_USER" -f '^sleep 60.4711'; }

@test "save: steps of a batch script do not inherit it" {
	prepare
	run_ok batch "${in_image[@]}" --container-save=saved/x.sqsh --output=batch.out --wrap 'env; echo the end'
	output=$(<"$user_home/batch.out")
	expect_line 'the end'
	refute_match -i '_save='
	[[ $(saved) == x.sqsh ]]
}

@test "save: mistakes are found before anything is submitted" {
	local with_image=(--container-image="$BROLGA_TEST_IMAGE")
	refused '--container-save: open /nowhere: no such file or directory' "${with_image[@]}" --container-save=/nowhere/x.sqsh
	refused '--container-save: open /etc: permission denied' "${with_image[@]}" --container-save=/etc/x.sqsh
	refused "--container-save: $user_home/saved exists and is no regular file" "${with_image[@]}" --container-save="$user_home/saved"
	refused '--container-save: "saved/" is a directory: want the name of a file' "${with_image[@]}" --container-save=saved/
	refused '--container-save: "saved/%x": want %n, %N, %j, %s or %% for what begins with %' "${with_image[@]}" --container-save=saved/%x
	refused '--container-save: a container that the step only joins cannot be saved' "${with_image[@]}" --container-name=x:exec --container-save=saved/x
	printf '0 true\n' | as_user tee "$user_home/multi.conf" >/dev/null
	run_fails crun "${with_image[@]}" --container-save=saved/x --multi-prog "$user_home/multi.conf"
	expect_one_error '--container-save cannot be used with --multi-prog'
}

@test "save: the node's own mistakes are found before the command runs" {
	prepare
	as_user mkdir saved/n1
	run_fails crun -N2 -n2 "${in_image[@]}" --container-save='saved/%N/x.sqsh' sh -c 'echo $SLURMD_NODENAME >>/home/none || :'
	expect_line "brolga: error: --container-save: open $user_home/saved/n2: no such file or directory"
}
