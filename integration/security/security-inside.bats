#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A task in a container must be able to do nothing to the host, to the programs that
# start steps, and to other steps. probe.c tries it, and the tests know each answer: a
# test fails when something becomes possible, or ceases to be.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images

setup_file() {
	local BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR # for new_image
	local image
	gcc -O1 -Wall -Werror -static -o "$BATS_FILE_TMPDIR/probe" "$repo/integration/programs/probe.c"
	new_image
	install -m 0755 "$BATS_FILE_TMPDIR/probe" "$image/bin/probe"
	ln -s busybox "$image/bin/true"
	push_image inside/probe:1
	export ref probe=$BATS_FILE_TMPDIR/probe
	# It exists on the host alone.
	export host_file=$BROLGA_CLUSTER_DIR/etc/env
}

setup() {
	mark_logs
	in_image=(--container-image="$ref")
	as_user rm -f started go app.sqsh stopped saved.sqsh
	given
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	as_user touch go
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	end_stopped
	rm -rf "$BROLGA_CLUSTER_DIR"/named/*/"$(id -u "$BROLGA_TEST_USER")"
}

# One line for each attempt: its answer by default, as remapped root, with namespaces
# of its own, and with both. "A" is ALLOWED. In the fifth column root of the host,
# outside of a container, has to be able to do it: that proves the attempt.
attempts="
----- join the mount namespace of process 1
----- join the process namespace of process 1
----- join the network of process 1
----- join the user namespace of process 1
----A join its own mount namespace again
----A join its own network again
--A-- enter the root directory of process 1
----A make a mount namespace
----A make a process namespace
----A make a network
----A make an IPC namespace
----A make a UTS namespace
----A make a cgroup namespace
AAAAA make a user namespace
----A mount a file system
----A mount a directory elsewhere
----A mount /sys to be written
----A mount the root to have devices
----A share mounts with the host
----A unmount /proc
----- unmount /etc/passwd
----A copy a mount
----A begin a mount
----A change the root by a mount
-A-AA change the root directory
----A leave the root directory
----A see the host's file
----A open a file by its handle
----A make a character device
----A make a block device
----A make a whiteout
-A-AA write in the image's /etc
-A-AA write in the image's /
----A set an attribute of overlayfs
----A set a security attribute
----A watch a file system
----A count what processes use
----- open a disk
----- open the memory
----- open the kernel's log
----A ask for a loop device
----A open a loop device
AAAAA open /dev/fuse
----- mount what /dev/fuse serves
----A make a file immutable
----A write core_pattern
----- write modprobe
----A write a sysctl
----- write sysrq-trigger
----- write uevent_helper
----A write an uevent
----A write a file of /sys
----- write release_agent
----A move to the first cgroup
----- read the kernel's memory
----- read the kernel's log
----- see the kernel's debug files
----- lower its oom score
----- become root of the host
----A gain a capability
----A set the host name
----A set the clock
----- load a module
----A load a BPF program
----A count events of all processes
----A handle the kernel's page faults
AAAAA handle its own page faults
----A send any packet
----A send packets of any protocol
----A change the network
----A listen at a port of root's
----A run before all others
----A run with a higher priority
----- raise a limit
--AAA signal process 1
AAAAA in a user namespace: mount a file system
----A in a user namespace: mount /sys to be written
----A in a user namespace: mount the root to have devices
----A in a user namespace: mount the root to have setuid programs
----- in a user namespace: unmount /proc
----- in a user namespace: unmount /etc/passwd
----- in a user namespace: unmount the root
----- in a user namespace: mount a disk
----- in a user namespace: make a device
----- in a user namespace: write release_agent
----A in a user namespace: write core_pattern
----- in a user namespace: join the mount namespace of process 1
----A in a user namespace: leave the root directory
----- in a user namespace: change the host's network
----- in a user namespace: open a file by its handle
----- in a user namespace: load a BPF program
----- in a user namespace: read the kernel's log
AAAAA trace its own child
AAAAA stop its own child
"

# The same for attempts on another process. The columns: a task of the same user that
# waits to join; the process that saves a container of the same user; the helper and
# slurmstepd; a process of root's, where root of the host tries it.
attempts_on_process="
---A trace it
---A attach to it
---A open its memory
---A read its memory
---A write its memory
---A enter its root directory
---A enter its working directory
-A-A list its descriptors
---A follow its descriptors
---A take a descriptor
---A see its program
---A read its environment
---A read its mappings
---A read its system call
---- read its stack
---A read its auxiliary vector
---A read its counters
---A open its mount namespace
---- join its mount namespace
---- count its events
---A compare it
-A-A write its oom score
AA-A signal it
AA-A limit it
---A bind it to processors
---A give it another priority
"

no_privilege="CapInh:	0000000000000000
CapPrm:	0000000000000000
CapEff:	0000000000000000
CapBnd:	0000000000000000
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	0"

root_of_container="CapInh:	0000000000000000
CapPrm:	00000000800404fb
CapEff:	00000000800404fb
CapBnd:	00000000800404fb
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2"

# answers TABLE COLUMN: what probe says.
answers() {
	sed -nE "s/^.{$(($2 - 1))}A[-A]* (.*)/\1: ALLOWED/p; s/^.{$(($2 - 1))}-[-A]* (.*)/\1: denied/p" <<<"$1"
}

# Why something is denied depends on the kernel.
said() { sed -E '/^srun: job [0-9]+ /d; s/^(.*: denied) \(.*/\1/' <<<"$output"; }

# expect_answers TABLE COLUMN [PRIVILEGE]
expect_answers() {
	diff <(printf '%s' "${3:+$3$'\n'}" && answers "$1" "$2") <(said) >&2 || fail "other answers than expected: $output"
}

# probe_in OPTION...: in a step with these options, which may be of an own image.
probe_in() { run_ok crun "$@" probe task "$host_file"; }

# Waits until the step that it starts has said that it runs.
start_step() {
	as_user timeout 60 srun -w n1 "$@" sh -c 'touch ~/started; until [ -e ~/go ]; do sleep 0.1; done' 3>&- &
	step=$!
	retry 20 test -e "$user_home/started"
}

@test "inside: what the probe tries works for root of the host" {
	local wanted
	run_ok "$probe" task "$host_file"
	while read -r wanted; do
		expect_line "$wanted"
	done < <(answers "$attempts" 5 | grep 'ALLOWED$')
}

@test "inside: by default a task can do nothing to the host" {
	probe_in "${in_image[@]}"
	expect_answers "$attempts" 1 "$no_privilege"
}

@test "inside: a remapped root can change its image and nothing of the host" {
	probe_in "${in_image[@]}" --container-remap-root
	expect_answers "$attempts" 2 "$root_of_container"
}

@test "inside: namespaces of its own give a task no right" {
	probe_in "${in_image[@]}" --container-unshare=net,ipc,uts,pid
	expect_answers "$attempts" 3 "$no_privilege"
}

@test "inside: namespaces of its own give a remapped root no further right" {
	probe_in "${in_image[@]}" --container-unshare=net,ipc,uts,pid --container-remap-root
	expect_answers "$attempts" 4 "$root_of_container"
}

@test "inside: a named container is no different, new, kept or joined" {
	site_config 'named.scope = "user"'
	for column in 1 2; do
		option=(--no-container-remap-root) privilege=$no_privilege
		((column == 1)) || option=(--container-remap-root) privilege=$root_of_container
		for _ in new kept; do
			probe_in -w n1 "${in_image[@]}" "${option[@]}" --container-name="x$column"
			expect_answers "$attempts" "$column" "$privilege"
		done
		as_user rm -f started go
		start_step "${option[@]}" --container-name="x$column"
		probe_in -w n1 --container-name="x$column:exec"
		as_user touch go
		wait "$step"
		expect_answers "$attempts" "$column" "$privilege"
	done
}

@test "inside: a saved container is no different" {
	run_ok crun "${in_image[@]}" --container-remap-root --container-save=saved.sqsh sh -c 'cp /bin/probe /bin/again; busybox chmod 6755 /bin/probe'
	run_ok crun --container-image=./saved.sqsh sh -c 'stat -c %a /bin/probe'
	expect_line 6755
	probe_in --container-image=./saved.sqsh
	expect_answers "$attempts" 1 "$no_privilege"
	site_config "user_squashfs = 'convert'"
	probe_in --container-image=./saved.sqsh --container-remap-root
	expect_answers "$attempts" 2 "$root_of_container"
}

@test "inside: a task holds no descriptor that it does not hold without a container" {
	install -m 0755 "$probe" "$user_home/probe"
	# shellcheck disable=SC2016 # for the shell of the step
	list='for f in /proc/self/fd/*; do echo "${f##*/} $(readlink "$f")"; done'
	run_ok crun sh -c "$list"
	plain=$(sed -E 's/\[?[0-9]{2,}\]?//g' <<<"$output" | grep -v /proc | sort)
	for options in "" --container-remap-root --container-unshare=pid --container-entrypoint; do
		# shellcheck disable=SC2086 # none, where it is empty
		run_ok crun --container-image="$BROLGA_TEST_IMAGE" $options sh -c "$list"
		[[ $(sed -E 's/\[?[0-9]{2,}\]?//g' <<<"$output" | grep -v /proc | sort) == "$plain" ]] || fail "$options: $output, not $plain"
	done
	rm "$user_home/probe"
}

# hold_step: a step whose helper waits for a squashfuse that its user has stopped. Its
# tasks wait for the helper. Sets $task, $helper, $stepd and $server.
hold_step() {
	mksquashfs "$1" "$user_home/app.sqsh" -quiet -no-progress >/dev/null
	as_user tee stopped >/dev/null <<<$'#!/bin/bash\nkill -STOP $$\nexec /usr/bin/squashfuse_ll "$@"'
	chmod 0755 "$user_home/stopped"
	site_config "squashfuse = \"$user_home/stopped\""
	as_user timeout 120 srun -w n1 --container-image=./app.sqsh /bin/sh -c 'echo it has run' >"$BATS_TEST_TMPDIR/held" 2>&1 3>&- &
	held=$!
	retry 30 held_processes || fail "no step waits: $(ps -fu "$BROLGA_TEST_USER")"
	restore_site_config
}

held_processes() {
	server=$(pgrep -u "$BROLGA_TEST_USER" --runstates T -f "^/bin/bash $user_home/stopped") &&
		task=$(pgrep -u "$BROLGA_TEST_USER" -x brolga-task) &&
		helper=$(ps -o ppid= -p "$server") && stepd=$(ps -o ppid= -p "$task") &&
		helper=${helper// /} && stepd=${stepd// /} &&
		[[ $(readlink "/proc/$helper/exe") == "$BROLGA_CLUSTER_DIR"/prefix/*/brolga-helper ]]
}

end_stopped() { pgrep -u "$BROLGA_TEST_USER" --runstates T | xargs -r kill -CONT; }

@test "inside: what the probe tries on a process works on one's own" {
	sleep 60 3>&- &
	run_ok "$probe" process $!
	kill $!
	while read -r wanted; do
		expect_line "$wanted"
	done < <(answers "$attempts_on_process" 4 | grep 'ALLOWED$')
}

@test "inside: a task that waits to join, the helper and slurmstepd are closed to the user" {
	new_image
	hold_step "$image"
	run_ok crun -w n2 "${in_image[@]}" probe process "$task"
	expect_answers "$attempts_on_process" 1
	# That root has the same user, and more capabilities in a namespace of its own.
	run_ok crun -w n2 "${in_image[@]}" --container-remap-root probe process "$task"
	expect_answers "$attempts_on_process" 1
	install -m 0755 "$probe" "$user_home/probe"
	for process in "$helper" "$stepd"; do
		for option in --no-container-remap-root --container-remap-root; do
			run_ok crun -w n2 "${in_image[@]}" "$option" probe process "$process"
			expect_answers "$attempts_on_process" 3
		done
		run_ok as_user ./probe process "$process"
		expect_answers "$attempts_on_process" 3
	done
	rm "$user_home/probe"
	# The step is none the worse.
	kill -CONT "$server"
	wait "$held" || fail "$(<"$BATS_TEST_TMPDIR/held")"
	grep -qx 'it has run' "$BATS_TEST_TMPDIR/held"
	nodes_idle
}

# Sockets of the process that have a name in the network, for anyone to connect to.
abstract_sockets() {
	readlink "/proc/$1"/fd/* 2>/dev/null | sed -n 's/^socket:\[\(.*\)\]$/\1/p' |
		awk 'NR == FNR {ours[$1]; next} $8 ~ /^@/ && $7 in ours' - /proc/net/unix
}

@test "inside: neither helper nor task has a socket that others could connect to" {
	local process
	new_image
	hold_step "$image"
	readlink "/proc/$helper"/fd/* | grep -q '^socket:' || fail "the helper has no socket at all"
	for process in "$helper" "$task" "$stepd" "$server"; do
		run_ok abstract_sockets "$process"
		[[ -z $output ]] || fail "$(tr '\0' ' ' <"/proc/$process/cmdline"): $output"
	done
	kill -CONT "$server"
	wait "$held"
	# And the check sees one.
	python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); s.bind("\0brolga-probe"); s.listen(); time.sleep(60)' 3>&- &
	retry 10 grep -q @brolga-probe /proc/net/unix
	run_ok abstract_sockets $!
	kill $!
	expect_match @brolga-probe
}

@test "inside: keys of root are closed to a task, and so is root's keyring" {
	local key option
	key=$("$probe" make-key)
	for option in --no-container-remap-root --container-remap-root --container-unshare=ipc,pid; do
		run_ok crun "${in_image[@]}" "$option" probe keys "$key"
		refute_match ALLOWED
		[[ $(grep -c ': denied ' <<<"$output") == 7 ]] || fail "$output"
	done
	run_ok "$probe" keys "$key"
	expect_line 'read the key: ALLOWED'
	expect_line 'revoke the key: ALLOWED'
}

# A save that lasts: what writes the file sleeps.
slow_save() {
	as_user tee slow >/dev/null <<<$'#!/bin/sh\nexec sleep 60.4713'
	chmod 0755 "$user_home/slow"
	run_ok crun "${in_image[@]}" true # the image is converted
	site_config "tar2sqfs = \"$user_home/slow\""
	as_user timeout 120 srun -w n1 "${in_image[@]}" --container-save=saved.sqsh true >/dev/null 2>&1 3>&- &
	retry 30 pgrep -u "$BROLGA_TEST_USER" -f '^sleep 60.4713' || fail "nothing is saved"
	saver=$(pgrep -u "$BROLGA_TEST_USER" -f "^$BROLGA_CLUSTER_DIR/prefix/bin/brolga save ")
}

@test "inside: what saves a container may read all of it, and is closed to its user" {
	slow_save
	grep -q 'CapEff:.0000000000000004$' "/proc/$saver/status" || fail "$(grep Cap "/proc/$saver/status")"
	for option in --no-container-remap-root --container-remap-root; do
		run_ok crun -w n2 "${in_image[@]}" "$option" probe process "$saver"
		expect_answers "$attempts_on_process" 2
	done
	install -m 0755 "$probe" "$user_home/probe"
	run_ok as_user ./probe process "$saver"
	expect_answers "$attempts_on_process" 2
	rm "$user_home/probe"
}
