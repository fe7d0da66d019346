#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-name, brolga containers, brolga rm and brolga gc --containers

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
	as_user rm -f started go
	given
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	rm -rf "$BROLGA_CLUSTER_DIR"/named/*/"$(id -u "$BROLGA_TEST_USER")"
	[[ ! -e $helper.away ]] || mv "$helper.away" "$helper"
	[[ ! -d $BROLGA_CLUSTER_DIR/small-disk ]] || umount --lazy "$BROLGA_CLUSTER_DIR/small-disk" && rm -rf "$BROLGA_CLUSTER_DIR/small-disk"
}

helper=$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-helper

# nothing_to_find: the end of a job on n1 has found that the node has no container.
nothing_to_find() {
	run_ok as_user srun -w n1 true
	retry 20 test -e "$BROLGA_CLUSTER_DIR/run/unnamed/n1"
	nodes_idle
}

# in_job [OPTION]... SCRIPT: a script with srun in an allocation; $I is the option
# for the image, and the step's messages are lines of the output.
in_job() {
	run as_user env I="${in_image[*]}" timeout 60 salloc --quiet "${@:1:$#-1}" bash -c "${*: -1}"
}

kept() { find "$BROLGA_CLUSTER_DIR/named" -mindepth 3 ! -type d -printf '%P\n'; }

nothing_kept() { [[ -z $(kept) ]]; }

expect_nothing_kept() {
	retry 10 nothing_kept || fail "kept: $(kept)"
	expect_no_leftovers
	nodes_idle
}

containers() { as_user env BROLGA_CONFIG="$BROLGA_CONFIG" brolga containers "$@"; }

# A step that says when it runs, and waits.
waiter='echo >>started; while [[ ! -e go ]]; do sleep 0.1; done'

@test "name: what a step writes is there for later ones of the job, on its node, and gone after" {
	in_job -N2 '
		srun -N2 $I --container-name=x sh -c "echo \$SLURMD_NODENAME >/tmp/x; rm /tmp/none 2>/dev/null; id -u >/var/tmp/u"
		srun -N2 --container-name=x sh -c "[ \$SLURMD_NODENAME = \$(cat /tmp/x) ] && echo same \$(stat -c %U /tmp/x)"
		srun -N2 $I sh -c "ls /tmp/x"
		srun -N2 $I --container-name=y sh -c "ls /tmp/x"'
	((status != 0)) || fail "$output"
	[[ $(grep -cxF "same $BROLGA_TEST_USER" <<<"$output") == 2 ]] || fail "$output"
	[[ $(grep -c "cannot access '/tmp/x'" <<<"$output") == 4 ]] || fail "$output"
	expect_nothing_kept
}

@test "name: the end of a job looks for containers also where the one before found none" {
	nothing_to_find
	in_job -w n1 'srun $I --container-name=x touch /tmp/x; srun --container-name=x ls /tmp/x'
	((status == 0)) || fail "$output"
	expect_line /tmp/x
	expect_nothing_kept
}

@test "name: where no container is, the end of a job starts nothing" {
	nothing_to_find
	mv "$helper" "$helper.away"
	run_ok as_user srun -w n1 true
	nodes_idle
	mv "$helper.away" "$helper"
	run log_since_mark slurmd.n1.log
	refute_match 'remove containers'
}

@test "name: removed and replaced files of the image stay so" {
	new_image
	mkdir "$image/data"
	echo image | tee "$image/data/a" "$image/data/b" "$image/data/c" >/dev/null
	chmod 1777 "$image/data"
	chmod 666 "$image"/data/*
	push_image option-name:1
	in_job "
		srun --container-image=$ref --container-remap-root --container-name=x sh -c 'rm /data/a; rm -r /etc; mkdir /etc; echo mine >/data/b; ln /data/b /data/d'
		srun --container-remap-root --container-name=x sh -c 'ls /data /etc; cat /data/b /data/c; stat -c %h /data/d'"
	((status == 0)) || fail "$output"
	[[ $(grep -v '^Warning' <<<"$output" | tr '\n' ' ') == *'/data: b c d '*'mine image 2 ' ]] || fail "$output"
	refute_match '^a$'
}

@test "name: create, exec and no_exec say what they did not find, or found" {
	in_job '
		srun --container-name=x true
		srun --container-name=x:exec $I true
		srun --container-name=x:create $I true && echo created
		srun --container-name=x:create $I true
		srun --container-name=x:no_exec touch /tmp/again && echo again
		srun --overlap --container-name=x bash -c "'"$waiter"'" &
		while [[ ! -e started ]]; do sleep 0.1; done
		srun --overlap --container-name=x:no_exec true
		srun --overlap --container-name=x:create $I true
		srun --overlap --container-name=x:exec ls /tmp/again
		touch go; wait'
	expect_line 'brolga: error: --container-name: there is no container x on node n1'
	expect_line 'brolga: hint: make it with --container-image=IMAGE'
	expect_line 'brolga: error: --container-name: container x does not run on node n1'
	expect_line 'created'
	expect_line 'brolga: error: --container-name: container x exists on node n1'
	expect_line 'again'
	[[ $(grep -c 'brolga: error: --container-name: container x runs on node n1 already' <<<"$output") == 2 ]] || fail "$output"
	expect_line /tmp/again
	expect_nothing_kept
}

@test "name: a step that joins gets what a task of the first has, and no more" {
	# shellcheck disable=SC2016 # for the shell of the task
	facts='cd /proc/self; for n in mnt net ipc uts pid user; do readlink ns/$n; done; grep -E "^(Cap|NoNew|Uid|Gid|Groups|Seccomp:)" status; readlink /proc/self/root; pwd -P >/dev/null; umask'
	for with in "" --container-unshare=net,ipc,uts,pid "--container-remap-root --container-unshare=uts"; do
		as_user rm -f started go first
		in_job "
			srun --overlap \$I --container-name=x $with bash -c '($facts) >first; $waiter' &
			while [[ ! -e started ]]; do sleep 0.1; done
			srun --overlap --container-name=x:exec bash -c '$facts'
			touch go; wait"
		((status == 0)) || fail "$output"
		[[ $output == "$(<"$user_home/first")" ]] || fail "joined: $output, first: $(<"$user_home/first")"
	done
	expect_nothing_kept
}

@test "name: steps that start at once share one container" {
	in_job -n5 '
		for i in 1 2 3 4 5; do
			srun --overlap -n1 $I --container-name=x bash -c "echo \$SLURM_STEP_ID >>/tmp/steps
				for i in {1..300}; do (( \$(wc -l </tmp/steps) == 5 )) && break; sleep 0.1; done; wc -l </tmp/steps; readlink /proc/self/ns/mnt" &
		done; wait'
	((status == 0)) || fail "$output"
	[[ $(grep -cx 5 <<<"$output") == 5 ]] || fail "$output"
	[[ $(grep '^mnt' <<<"$output" | sort -u | wc -l) == 1 ]] || fail "$output"
	expect_nothing_kept
}

@test "name: it is the first step's image, and the user is told" {
	in_job "
		srun \$I --container-name=x true
		srun --container-image=$BROLGA_TEST_SMALL_IMAGE --container-name=x cat /etc/debian_version
		srun --overlap --container-name=x bash -c '$waiter' &
		while [[ ! -e started ]]; do sleep 0.1; done
		srun --overlap --container-name=x --container-mounts=/etc:/mnt ls /mnt
		srun --overlap --container-name=x --container-remap-root --container-unshare=net true
		touch go; wait"
	expect_match "brolga: warning: container x exists and has the image $BROLGA_TEST_IMAGE; $BROLGA_TEST_SMALL_IMAGE is not used"
	expect_match '^12\.'
	expect_match 'brolga: warning: --container-mounts has no effect: container x runs already, with the mounts of step [0-9]+\.2'
	expect_match 'brolga: error: --container-unshare=net: container x runs without it; --container-remap-root: container x runs without it'
	expect_nothing_kept
}

@test "name: JOB.STEP joins the container of a step, named or not" {
	in_job -N2 "
		srun --overlap -N2 \$I --container-unshare=pid bash -c '$waiter' &
		while [[ ! -e started ]] || ((\$(wc -l <started) < 2)); do sleep 0.1; done
		srun --overlap -N2 --container-name=\$SLURM_JOB_ID.0 cat /proc/1/comm
		srun --overlap -N1 -w n1 --container-name=\$SLURM_JOB_ID.7 true
		touch go; wait
		srun --overlap -N1 -w n1 --container-name=\$SLURM_JOB_ID.0 true"
	[[ $(grep -cx brolga-launch <<<"$output") == 2 ]] || fail "$output"
	expect_match 'brolga: error: join step [0-9]+\.7: no container of yours runs on node n1 in that step'
	expect_match 'brolga: error: join step [0-9]+\.0: no container of yours runs on node n1 in that step'
	expect_no_leftovers
}

@test "name: a requeued job begins anew, and scancel leaves nothing" {
	cat >"$user_home/requeue.sh" <<-SCRIPT
		#!/bin/bash
		srun --container-image=$BROLGA_TEST_IMAGE --container-name=x sh -c 'ls /tmp/x; touch /tmp/x' >>requeue.out 2>&1
		srun --container-name=x bash -c '$waiter'
	SCRIPT
	as_user rm -f requeue.out
	job=$(as_user sbatch --parsable --requeue --output=/dev/null requeue.sh)
	retry 20 test -e "$user_home/started"
	as_user rm started
	scontrol requeue "$job"
	# Slurm has it wait for two minutes. In the second of its end slurmd refuses it.
	retry 20 is_pending "$job"
	scontrol update jobid="$job" StartTime=now+2
	retry 20 test -e "$user_home/started" || fail "not run again: $(scontrol show job "$job")"
	[[ $(grep -c "cannot access '/tmp/x'" "$user_home/requeue.out") == 2 ]] || fail "$(<"$user_home/requeue.out")"
	[[ -n $(kept) ]]
	as_user scancel "$job"
	expect_nothing_kept
}

is_pending() { [[ $(squeue --noheader --jobs="$1" --format=%T) == PENDING ]]; }

@test "name: a batch script in a named container, and a step beside it" {
	cat >"$user_home/batch.sh" <<-SCRIPT
		#!/bin/bash
		#SBATCH --container-image=$BROLGA_TEST_IMAGE --container-name=b --output=batch.out
		echo \$(touch /tmp/from-batch; ls /tmp)
		$waiter
	SCRIPT
	job=$(as_user sbatch --parsable batch.sh)
	retry 20 test -e "$user_home/started" || fail "$(cat "$user_home/batch.out")"
	run_ok crun --overlap --jobid="$job" --container-name=b ls /tmp/from-batch
	run_ok crun --overlap --jobid="$job" --container-name="$job.batch" ls /tmp/from-batch
	as_user touch go
	expect_nothing_kept
	expect_match /tmp/from-batch
}

@test "name: in the user's scope the next job finds it, and the user lists and removes it" {
	site_config 'named.scope = "user"'
	run_ok crun -w n1 "${in_image[@]}" --container-name=keep sh -c 'echo kept >/tmp/x'
	run_ok crun -w n1 --container-name=keep cat /tmp/x
	expect_line kept
	run_fails crun -w n2 --container-name=keep cat /tmp/x
	run_ok containers
	expect_match "^keep +n1 +any +[0-9.]+ MiB +.* $BROLGA_TEST_IMAGE@sha256:"
	run_ok containers --json
	[[ $(jq -r '.[] | "\(.name) \(.node) \(.size > 0)"' <<<"$output") == 'keep n1 true' ]] || fail "$output"
	run_fails as_user env BROLGA_CONFIG="$BROLGA_CONFIG" brolga rm none keep
	expect_line 'brolga: error: none: no container of yours on this node has that name'
	run_fails crun -w n1 --container-name=keep cat /tmp/x
	expect_line 'brolga: error: --container-name: there is no container keep on node n1'
	expect_nothing_kept
}

@test "name: gc removes what nobody used for long, and no container that runs" {
	site_config 'named.scope = "user"'
	run_ok crun -w n1 "${in_image[@]}" --container-name=old true
	as_user srun -w n1 "${in_image[@]}" --container-name=running bash -c "$waiter" 3>&- &
	retry 20 test -e "$user_home/started"
	touch -d '40 days ago' "$BROLGA_CLUSTER_DIR"/named/n1/*/*.json
	run_fails as_user brolga gc --containers
	expect_line 'brolga: error: only root may collect containers'
	run_ok brolga gc --containers --older-than=50d
	expect_match '^removed 0'
	run_ok brolga gc --containers --dry-run
	expect_match '^would remove container old '
	run_ok brolga gc --containers
	expect_match '^removed container old '
	refute_match running
	as_user touch go
	wait "$!"
	retry 5 not_in_use
	run_ok brolga gc --containers --max-size=1k
	expect_match '^removed container running '
	expect_nothing_kept
}

not_in_use() { ! losetup --list --noheadings --output=BACK-FILE | grep -q "^$BROLGA_CLUSTER_DIR/named"; }

@test "name: gc and the next job's end remove what a job left whose end nobody saw" {
	run_ok crun -w n1 "${in_image[@]}" --container-name=x true
	expect_nothing_kept
	leave 1
	run_ok brolga gc --containers
	expect_match '^removed container left '
	expect_nothing_kept
	leave 2
	run_ok crun -w n1 true
	expect_nothing_kept
}

# leave JOB: as if the job had ended while slurmd was dead.
leave() {
	local dir
	dir=$BROLGA_CLUSTER_DIR/named/n1/$(id -u "$BROLGA_TEST_USER")
	echo '{"image": "x", "boot": "'"$(</proc/sys/kernel/random/boot_id)"'"}' >"$dir/$1:left.json"
	touch "$dir/$1:left.ext4" "$dir/list/$1:left"
	touch -d '2 hours ago' "$dir/$1:left.lock"
	rm -f "$BROLGA_CLUSTER_DIR/run/unnamed/n1" # which is not there with a container
}

@test "name: the site limits how much a container keeps" {
	site_config 'named.size = "16m"'
	in_job '
		srun $I --container-name=x sh -c "head -c 32M /dev/zero >/tmp/x"
		srun --container-name=x sh -c "rm /tmp/x && echo room >/tmp/y && cat /tmp/y"'
	((status == 0)) || fail "$output"
	expect_match 'No space left on device'
	expect_line room
	expect_nothing_kept
}

# small_disk SIZE: named containers are kept on one, until the test ends.
small_disk() {
	disk=$BROLGA_CLUSTER_DIR/small-disk
	mkdir -p "$disk"
	mount -t tmpfs -o "size=$1,mode=0755" small-disk "$disk"
	site_config "named.directory = \"$disk/named\"
named.user_share = 100"
}

@test "name: containers are not promised more than the disk has, and what was written to them stays" {
	small_disk 112m
	in_job -N1 '
		srun $I --container-name=x sh -c "head -c 200M /dev/zero >/tmp/x"
		srun $I --container-name=y sh -c "echo y >/tmp/y; head -c 200M /dev/zero >/tmp/z"
		srun $I --container-name=z true
		srun --container-name=x sh -c "sha256sum </tmp/x; head -c \$(stat -c %s /tmp/x) /dev/zero | sha256sum" | uniq | wc -l
		srun --container-name=y cat /tmp/y'
	((status == 0)) || fail "$output"
	(($(grep -c 'No space left on device' <<<"$output") == 2)) || fail "$output"
	expect_match 'brolga: error: make container z: only [0-9]+m of .*/small-disk/named on this node are not promised to other containers$'
	expect_match 'brolga: hint: remove containers that you do not need \("brolga containers"\), try another node, '
	expect_line 1
	expect_line y
	expect_no_leftovers
}

@test "name: a user has as many containers on a node as the site allows, not counting what was removed" {
	site_config 'named.count = 2'
	in_job -w n1 '
		for name in a b c a; do srun $I --container-name=$name echo in $name; done
		BROLGA_CONFIG='"$BROLGA_CONFIG"' brolga rm b
		for name in c b; do srun $I --container-name=$name echo again in $name; done'
	[[ $(grep -E '^(again )?in ' <<<"$output" | tr '\n' ,) == "in a,in b,in a,again in c," ]] || fail "$output"
	expect_match 'brolga: error: make container c: you have 2 containers on node n1, and this cluster allows 2$'
	expect_match 'brolga: hint: remove some \("brolga containers", "brolga rm"\); those of jobs go when the jobs end$'
	expect_nothing_kept
	site_config 'named.user_size = "1m"'
	in_job -w n1 'srun $I --container-name=a sh -c "head -c 3M /dev/urandom >/tmp/a"; srun $I --container-name=b true'
	expect_match 'brolga: error: make container b: your containers on node n1 take [0-9]+m, and this cluster allows 1m$'
	expect_nothing_kept
}

@test "name: after SIGKILL of the helper the name is free and the next step works" {
	as_user srun -w n1 "${in_image[@]}" --container-name=x --container-init bash -c "$waiter" 3>&- &
	retry 20 test -e "$user_home/started"
	pkill -KILL -f "^$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-helper step"
	wait "$!" || true
	run_ok crun "${in_image[@]}" --container-name=x true
	expect_nothing_kept
}

@test "name: mistakes are found before anything is submitted" {
	refused '--container-name: "../x": want letters, digits, _, - and dots, a letter or digit first' "${in_image[@]}" --container-name=../x
	refused '--container-name: ".x": want letters, digits, _, - and dots, a letter or digit first' "${in_image[@]}" --container-name=.x
	refused '--container-name: the name is empty' "${in_image[@]}" --container-name=:exec
	refused '--container-name: "aaaaaaaaaaaaaaaaaaaa"...: the name is longer than 64 characters' "${in_image[@]}" --container-name="$(printf 'a%.0s' {1..65})"
	refused '--container-name: "run" is not one of auto, create, exec, no_exec' "${in_image[@]}" --container-name=x:run
	refused '--container-name: 12.0 is a job step, whose container can only be joined: leave :create out' "${in_image[@]}" --container-name=12.0:create
	refused 'container options are given, but no image' --container-name=x:create
	refused '--container-name needs a value: NAME[:auto|create|exec|no_exec]' "${in_image[@]}" --container-name=
}

@test "name: the variable does the same" {
	run_ok as_user env BROLGA_CONTAINER_NAME=v salloc --quiet sh -c "srun ${in_image[*]} touch /tmp/v; srun ${in_image[*]} ls /tmp/v"
	expect_line /tmp/v
}
