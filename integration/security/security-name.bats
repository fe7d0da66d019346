#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# What is kept of a named container is the work of a user and is mounted by root,
# and steps join containers that run. A user must get at nobody else's that way,
# and root must follow nothing that the user has left.

load ../lib/helpers
load ../lib/images

other=${BROLGA_TEST_USER}b

setup_file() { useradd --create-home --shell /bin/bash "$other"; }

teardown_file() {
	rm -rf "$BROLGA_CLUSTER_DIR"/named/*/"$(id -u "$other")"
	userdel --remove "$other" 2>/dev/null
}

setup() {
	mark_logs
	in_image=(--container-image="$BROLGA_TEST_IMAGE" -w n1)
	mine=$BROLGA_CLUSTER_DIR/named/n1/$(id -u "$BROLGA_TEST_USER")
	as_user rm -f started go
	site_config 'named.scope = "user"'
}

teardown() {
	dump_logs_on_failure
	as_user touch go
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	restore_site_config
	rm -rf "$mine" "$BROLGA_CLUSTER_DIR"/named/n1/"$(id -u "$other")"
	! mountpoint -q "$BROLGA_CLUSTER_DIR/fair-disk" || retry 20 umount "$BROLGA_CLUSTER_DIR/fair-disk"
}

# as_other COMMAND...: crun or as_user, as another user.
as_other() {
	local user_home
	user_home=$(getent passwd "$other" | cut -d: -f6)
	BROLGA_TEST_USER=$other "$@"
}

# In the background a step of the user's says that it runs, and waits.
start_step() {
	as_user srun "${in_image[@]}" "$@" bash -c 'echo >started; while [[ ! -e go ]]; do sleep 0.1; done' 3>&- &
	retry 20 test -e "$user_home/started"
	job=$(squeue --noheader --user="$BROLGA_TEST_USER" --format=%A)
}

@test "equal names of two users never meet" {
	run_ok crun "${in_image[@]}" --container-name=x sh -c 'echo secret >/tmp/x'
	run_fails as_other crun -w n1 --container-name=x cat /tmp/x
	expect_line 'brolga: error: --container-name: there is no container x on node n1'
	run_ok as_other crun "${in_image[@]}" --container-name=x sh -c 'echo theirs >/tmp/x'
	run_ok crun "${in_image[@]}" --container-name=x cat /tmp/x
	expect_line secret
	run_fails as_other as_user env BROLGA_CONFIG="$BROLGA_CONFIG" sh -c 'brolga rm x; brolga rm x'
	run_ok crun "${in_image[@]}" --container-name=x cat /tmp/x
	expect_line secret
}

@test "another user's container cannot be joined, by name nor by step" {
	start_step --container-name=x
	for name in x x:exec "$job.0"; do
		run_fails as_other crun -w n1 --container-name="$name" true
		expect_match 'brolga: error: (--container-name: (there is no container x on|container x does not run on) node n1|join step [0-9]+\.0: no container of yours runs on node n1 in that step)$'
	done
	run_ok as_user srun -w n1 --container-name="$job.0" true
	nodes_idle_but_running
}

nodes_idle_but_running() { ! sinfo --noheader --format=%T | grep -E 'drain|down'; }

@test "what is kept is root's alone" {
	run_ok crun "${in_image[@]}" --container-name=x sh -c 'echo secret >/tmp/x'
	for who in as_user as_other_user; do
		run_fails "$who" cat "$mine/user:x.ext4"
		run_fails "$who" sh -c ": >>'$mine/user:x.ext4'"
		run_fails "$who" cat "$mine/user:x.json"
		run_fails "$who" rm -f "$mine/user:x.ext4"
		run_fails "$who" mv "$mine/list" "$mine/none"
		run_fails "$who" ls "$mine"
	done
	run_fails as_other_user ls "$mine/list"
}

as_other_user() { as_other as_user "$@"; }

@test "no user can lock what steps and ends of jobs lock" {
	run_ok crun "${in_image[@]}" --container-name=x true
	for file in run/unnamed run/loop.lock named/.lock; do
		[[ -e $BROLGA_CLUSTER_DIR/$file ]] || fail "there is no $file"
		run_fails as_user flock --nonblock "$BROLGA_CLUSTER_DIR/$file" true
		expect_match 'Permission denied$'
	done
}

@test "nothing that the user puts into the list is followed" {
	target=$BATS_TEST_TMPDIR/root
	echo root >"$target"
	run_ok crun "${in_image[@]}" --container-name=x true
	for trick in "ln -s $target" "ln -s $target.new" mkfifo mkdir; do
		as_user rm -rf "$mine/list/user:x"
		as_user sh -c "$trick '$mine/list/user:x'"
		run as_user timeout 30 srun "${in_image[@]}" --container-name=x true
		((status != 124)) || fail "it hangs: $trick"
		run as_user timeout 30 srun "${in_image[@]}" --container-name=y true
		((status == 0)) || fail "$trick: $output"
		[[ $(<"$target") == root && ! -e $target.new ]]
		nodes_idle
	done
	as_user rm -rf "$mine/list/user:x"
	as_user chmod 0 "$mine/list"
	run_fails crun "${in_image[@]}" --container-name=x true
	expect_match 'brolga: error: make container x: add it to your list of containers: permission denied'
	nodes_idle
}

no_lock_left() { [[ -z $(find "$BROLGA_CLUSTER_DIR"/named/n1/*/ -maxdepth 1 -name '*.lock') ]]; }
noted_none() { [[ -e $BROLGA_CLUSTER_DIR/run/unnamed/n1 ]]; }

@test "whatever the user puts into the list, the end of the job removes the rest and no later job notices" {
	site_config 'named.scope = "job"'
	# One container exists, another was never made, and the third is the user's invention.
	# shellcheck disable=SC2016 # for the shell in the job
	run_ok as_user env mine="$mine" image="$BROLGA_TEST_IMAGE" salloc --quiet -w n1 bash -c '
		srun --container-image="$image" --container-name=made true || exit 1
		cd "$mine/list" || exit 1
		rm "$SLURM_JOB_ID:made"
		for name in made never invented; do mkdir -p "$SLURM_JOB_ID:$name/sub"; done
		srun --container-image="$image" --container-name=never true && exit 1
		mkfifo "1:fifo"; ln -s /etc/passwd "1:link"; echo text >"1:text"; ln "1:text" "1:hard"; mkdir $'"'1:a\\nb'"'
		for i in {1..3000}; do : >"7:$i"; done
		echo "$SLURM_JOB_ID"'
	job=$(grep -oxE '[0-9]+' <<<"$output")
	retry 20 no_lock_left || fail "$(ls -la "$mine")"
	run_ok grep -h "from the list of containers" <(log_since_mark slurmd.n1.log)
	for name in made never; do
		expect_match "remove $job:$name from the list of containers: directory not empty"
	done
	# A third line is the second step's own.
	mark_logs
	run_ok as_other crun "${in_image[@]}" --container-name=x true
	retry 20 no_lock_left || fail "the other user's container stays"
	retry 20 noted_none || fail "the node is not known to have none"
	run_ok crun -w n1 true
	output=$(log_since_mark slurmd.n1.log)
	refute_match 'helper has failed|list of containers'
	nodes_idle
}

@test "a user who makes containers without end leaves room for the next user's" {
	disk=$BROLGA_CLUSTER_DIR/fair-disk
	mkdir -p "$disk"
	mount -t tmpfs -o size=400m,mode=0755 fair-disk "$disk"
	site_config "named.scope = \"job\"
named.directory = \"$disk/named\""
	as_user env image="$BROLGA_TEST_IMAGE" salloc --quiet -w n1 --overcommit --oversubscribe bash -c '
		i=0; while srun --container-image="$image" --container-name=x$((i++)) true; do :; done
		echo >started; while [[ ! -e go ]]; do sleep 0.1; done' >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
	retry 40 test -e "$user_home/started" || fail "$(<"$BATS_TEST_TMPDIR/out")"
	output=$(<"$BATS_TEST_TMPDIR/out")
	expect_match 'make container x[1-9]: your containers have [0-9]+m of .* on this node, and this cluster allows 50 % of what other users leave$'
	expect_match 'brolga: hint: remove some \("brolga containers", "brolga rm"\)'
	# The other user may write as much as the first one's largest container has.
	run_ok as_other crun "${in_image[@]}" --overcommit --oversubscribe --container-name=x sh -c 'head -c 30M /dev/zero >/tmp/x && stat -c %s /tmp/x'
	expect_line $((30 << 20))
}

@test "links in what is kept lead nowhere outside" {
	theirs=$(mktemp -d /var/tmp/brolga-theirs.XXXXXX)
	chmod 0755 "$theirs"
	run_ok crun "${in_image[@]}" --container-name=x --container-remap-root sh -c "
		rm -rf /etc /tmp /mnt; ln -s $theirs /etc; ln -s ../../../../../..$theirs /tmp; ln -s /proc/1/root$theirs /mnt"
	run crun -w n1 --container-name=x --container-mounts=/usr:/etc/usr,/usr:/tmp/usr,/usr:/mnt/usr true
	[[ -z $(ls -A "$theirs") ]] || fail "root made $(ls -A "$theirs")"
	rmdir "$theirs"
	nodes_idle
}

@test "a setuid program in what is kept gains nothing" {
	run_ok crun "${in_image[@]}" --container-name=x --container-remap-root sh -c 'cp /usr/bin/id /tmp/id; chmod 6755 /tmp/id; stat -c %a /tmp/id'
	expect_line 6755
	run_ok crun -w n1 --container-name=x /tmp/id -u
	expect_line "$(id -u "$BROLGA_TEST_USER")"
	start_step --container-name=x
	run_ok as_user srun -w n1 --container-name=x sh -c '/tmp/id -u; grep -E "^(CapPrm|CapEff|CapBnd|NoNewPrivs)" /proc/self/status'
	expect_line "$(id -u "$BROLGA_TEST_USER")"
	[[ $(grep -cE '^Cap...:.0000000000000000$|^NoNewPrivs:.1$' <<<"$output") == 4 ]] || fail "$output"
}

@test "namespaces that users make are taken for no container" {
	as_user srun -w n1 unshare --user --map-root-user --mount --fork bash -c '
		mount -t tmpfs brolga /dev; echo >started; while [[ ! -e go ]]; do sleep 0.1; done' 3>&- &
	retry 20 test -e "$user_home/started"
	job=$(squeue --noheader --user="$BROLGA_TEST_USER" --format=%A)
	run_fails crun -w n1 --container-name="$job.0" true
	expect_line "brolga: error: join step $job.0: no container of yours runs on node n1 in that step"
}
