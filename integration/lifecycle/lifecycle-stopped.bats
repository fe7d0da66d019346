#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A user can stop the processes that work for a container, and a stopped process
# notices no end of anything. It must not outlive its step, whatever else is killed.
# In this cluster Slurm itself does not find such processes (proctrack/linuxproc).

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	new_image
	mksquashfs "$image" "$user_home/app.sqsh" -quiet -no-progress >/dev/null
	chown "$BROLGA_TEST_USER:" "$user_home/app.sqsh"
	as_user rm -f started go
	background=
	# The command itself needs nothing that squashfuse serves.
	served=(--container-image="$BROLGA_TEST_IMAGE" --container-mounts=./app.sqsh:/mnt:sqsh)
}

teardown() {
	dump_logs_on_failure
	as_user touch go
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	rm -f "$user_home/app.sqsh"
	# Of a test that failed.
	workers | xargs -r kill -KILL
	nodes_idle
}

# The processes of the user that work for containers.
workers() { pgrep -u "$BROLGA_TEST_USER" -f 'squashfuse_ll -f /proc/self/fd/3|brolga-ssh'; }
no_workers() { ! workers >/dev/null; }

# start_step COUNT OPTION...: a step that waits, with so many processes, all of them stopped.
start_step() {
	local count=$1
	shift
	as_user timeout 120 srun -w n1 "$@" sh -c 'touch started; while [ ! -e go ]; do sleep 0.1; done' \
		>"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
	background=$!
	retry 20 test -e "$user_home/started" || fail "$(<"$BATS_TEST_TMPDIR/out")"
	mapfile -t pids < <(workers)
	((${#pids[@]} == count)) || fail "there are ${#pids[@]}: $(ps -f -p "${pids[*]}")"
	as_user kill -STOP "${pids[@]}"
}

expect_gone() {
	retry 20 no_workers || fail "left: $(workers | xargs ps -f -p)"
	expect_no_leftovers
}

stepd_of() { pgrep -f "^slurmstepd: \[$(squeue --noheader --user="$BROLGA_TEST_USER" --format=%A).0\]"; }

@test "stopped: a squashfuse ends with its step" {
	start_step 1 "${served[@]}"
	as_user touch go
	wait "$background" || fail "$(<"$BATS_TEST_TMPDIR/out")"
	expect_gone
}

@test "stopped: each squashfuse of a step that is cancelled ends" {
	start_step 2 --container-image="$BROLGA_TEST_IMAGE" --container-mounts=./app.sqsh:/mnt:sqsh,./app.sqsh:/opt:sqsh
	as_user scancel --signal=KILL --user "$BROLGA_TEST_USER"
	wait "$background" || true
	expect_gone
	as_user rm started
	start_step 1 --container-image=./app.sqsh
	as_user scancel --signal=KILL --user "$BROLGA_TEST_USER"
	wait "$background" || true
	expect_gone
}

@test "stopped: an SSH server ends with its step" {
	start_step 1 --container-image="$BROLGA_TEST_IMAGE" --container-ssh
	as_user touch go
	wait "$background" || fail "$(<"$BATS_TEST_TMPDIR/out")"
	expect_gone
}

@test "stopped: a squashfuse ends after SIGKILL of the helper" {
	start_step 1 "${served[@]}" --container-init
	pkill -KILL -f "^$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-helper step" || fail "there is no helper"
	as_user touch go
	wait "$background" || true
	expect_gone
}

@test "stopped: a squashfuse ends with the job after SIGKILL of slurmstepd" {
	start_step 1 "${served[@]}"
	kill -KILL "$(stepd_of)"
	as_user touch go
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	wait "$background" || true
	expect_gone
}

helper_of() { pgrep -f "^$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-helper step"; }
no_helper() { ! helper_of >/dev/null; }

# The launcher has the tasks' socket, and the name of slurmstepd.
launcher() {
	local pid
	for pid in $(pgrep -u "$BROLGA_TEST_USER" -x slurmstepd); do
		[[ $(readlink "/proc/$pid/exe") != */brolga-launch ]] || echo "$pid"
	done
}

@test "stopped: the helper ends with its step while another process has a copy of its socket" {
	gcc -O1 -Wall -Werror -static -o "$BATS_TEST_TMPDIR/steal" "$repo/integration/programs/steal_sockets.c"
	install "$BATS_TEST_TMPDIR/steal" "$user_home/steal"
	start_step 1 "${served[@]}" --container-unshare=pid
	kill -CONT "${pids[@]}"
	as_user ./steal "$(launcher)" >"$BATS_TEST_TMPDIR/stolen" 2>&1 &
	thief=$!
	retry 5 grep -qx '[1-9]' "$BATS_TEST_TMPDIR/stolen" || fail "it has none: $(<"$BATS_TEST_TMPDIR/stolen")"
	as_user touch go
	wait "$background" || fail "$(<"$BATS_TEST_TMPDIR/out")"
	retry 5 no_helper || fail "it runs on"
	kill -0 "$thief" || fail "the thief has ended"
	pkill -u "$BROLGA_TEST_USER" -x steal
	rm -f "$user_home/steal"
	expect_gone
	nodes_idle
}

@test "stopped: slurmstepd kills a helper that does not end" {
	start_step 1 "${served[@]}" --container-unshare=pid
	kill -STOP "$(helper_of)"
	as_user touch go
	wait "$background" || true
	retry 5 no_helper || fail "it is still there"
	grep -q 'brolga: kill the helper: it does not end' <(log_since_mark slurmd.n1.log) || fail "it is not told"
	expect_gone
	nodes_idle
}

@test "stopped: nobody kills a process that has got the number of one" {
	start_step 1 "${served[@]}"
	note=$(echo "$BROLGA_CLUSTER_DIR"/run/poststop/step-*)
	sleep 300 &
	innocent=$!
	sed -i "s/\"PID\":${pids[0]},/\"PID\":$innocent,/" "$note"
	as_user touch go
	wait "$background" || true
	kill "${pids[@]}"
	kill -CONT "${pids[@]}"
	expect_gone
	kill "$innocent" || fail "it was killed"
}
