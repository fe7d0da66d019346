#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-unshare and --container-init

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
	given
}

namespaces() { run_ok crun "${in_image[@]}" "$@" sh -c 'cd /proc/self/ns; for n in net ipc uts pid; do echo "$n $(readlink $n)"; done'; }
host_namespace() { printf '%s %s' "$1" "$(readlink "/proc/self/ns/$1")"; }

@test "unshare: without it the container shares all but files with the host" {
	namespaces
	for ns in net ipc uts pid; do
		expect_line "$(host_namespace $ns)"
	done
}

@test "unshare: what is named is the container's own, the rest is the host's" {
	namespaces --container-unshare=ipc,uts
	expect_line "$(host_namespace net)"
	expect_line "$(host_namespace pid)"
	refute_match "$(readlink /proc/self/ns/ipc)"
	refute_match "$(readlink /proc/self/ns/uts)"
}

@test "unshare: the tasks of a node share the namespaces" {
	run_ok crun -n3 "${in_image[@]}" --container-unshare=net,ipc,uts,pid sh -c 'cd /proc/self/ns; for n in net ipc uts pid; do readlink $n; done'
	[[ $(sort -u <<<"$output" | wc -l) == 4 ]] || fail "$output"
}

@test "unshare: a network of its own has a loopback device and no other" {
	run_ok crun "${in_image[@]}" --container-unshare=net sh -c 'ls /sys/class/net; cat /sys/class/net/lo/flags; touch /sys/x || echo read-only'
	expect_line lo
	expect_line 0x9
	expect_line read-only
	[[ $(grep -cv read-only <<<"$output") -le 3 ]] || fail "$output"
}

@test "unshare: shared memory and message queues of its own are empty" {
	touch /dev/shm/brolga-test
	run_ok crun -n2 "${in_image[@]}" --container-unshare=ipc sh -c '
		echo x >/dev/shm/$SLURM_PROCID; echo x >/dev/mqueue/$SLURM_PROCID
		until [ -e /dev/shm/0 ] && [ -e /dev/shm/1 ]; do sleep 0.1; done
		ls /dev/shm; grep -E " /dev/(shm|mqueue) " /proc/self/mountinfo'
	rm /dev/shm/brolga-test
	refute_match brolga-test
	expect_match ' /dev/mqueue .*nosuid,nodev,noexec.* mqueue '
}

@test "unshare: with pid nothing of the host is seen, and process 1 reaps" {
	run_ok crun "${in_image[@]}" --container-unshare=pid sh -c '
		until grep -qx brolga-launch /proc/1/comm; do sleep 0.1; done # it has begun
		for p in /proc/[0-9]*; do echo "$(cat $p/comm)"; done
		sh -c "sleep 0.2 & exit"
		for i in $(seq 100); do
			grep -qsx sleep /proc/[0-9]*/comm || { echo no zombies; break; }
			sleep 0.1
		done'
	expect_line brolga-launch
	expect_line 'no zombies'
	refute_match 'slurm|init|systemd'
}

@test "unshare: with pid the command's signals, exit code and output are Slurm's" {
	run as_user srun --label "${in_image[@]}" --container-init sh -c 'echo $$; exit 42'
	((status == 42)) || fail "$status $output"
	expect_match '^0: [0-9]$'
	run as_user srun "${in_image[@]}" --container-init sh -c 'kill -USR1 $$'
	expect_match 'task 0: User defined signal 1'
	run_ok crun -n2 "${in_image[@]}" --container-init sh -c 'echo $SLURM_PROCID'
	[[ $(sort <<<"$output") == $'0\n1' ]] || fail "$output"
	run crun "${in_image[@]}" --container-init no-such-program
	((status == 2)) || fail "$status $output"
	expect_line 'brolga: error: execute no-such-program: No such file or directory'
}

@test "unshare: with pid and the entrypoint both are done" {
	new_image
	push_image --entrypoint env --entrypoint A=b option-unshare:1
	run_ok crun --container-image="$ref" --container-init --container-entrypoint sh -c 'echo "$A $$ $(cat /proc/1/comm)"'
	expect_match '^b [0-9] brolga-launch$'
}

no_sleep() { ! pgrep -u "$BROLGA_TEST_USER" -f "^sleep $1"; }

@test "unshare: with pid what a task leaves behind ends with the step, which leaves nothing" {
	run_ok crun -n2 "${in_image[@]}" --container-unshare=pid sh -c 'setsid sleep 4711 & exit 0'
	retry 10 no_sleep 4711 || fail "still there"
	expect_no_leftovers
}

@test "unshare: scancel ends a step with process namespace" {
	as_user srun "${in_image[@]}" --container-init sleep 4712 &
	retry 20 pgrep -u "$BROLGA_TEST_USER" -f '^sleep 4712' || fail "not started"
	scancel --user="$BROLGA_TEST_USER"
	wait "$!" || true
	retry 10 no_sleep 4712 || fail "still there"
	expect_no_leftovers
	nodes_idle
}

@test "unshare: there is no privilege in the namespaces" {
	run_ok crun "${in_image[@]}" --container-unshare=net,ipc,uts,pid sh -c 'grep -E "Cap(Prm|Bnd)|NoNew" /proc/self/status /proc/1/status; id -u; ! mount -t tmpfs x /mnt; ! hostname x'
	[[ $(grep -c 'Cap...:.0000000000000000' <<<"$output") == 4 ]] || fail "$output"
	expect_line "$(id -u "$BROLGA_TEST_USER")"
}

@test "unshare: the variables do the same" {
	run_ok as_user env BROLGA_CONTAINER_UNSHARE=net BROLGA_CONTAINER_INIT=1 srun "${in_image[@]}" sh -c 'ls /sys/class/net; cat /proc/1/comm'
	expect_line lo
	expect_line brolga-launch
}

@test "unshare: mistakes are found before anything is submitted" {
	refused '--container-unshare: "user" is not one of net, ipc, uts, pid' "${in_image[@]}" --container-unshare=net,user
	refused '--container-unshare: "" is not one of net, ipc, uts, pid' "${in_image[@]}" --container-unshare=net,
	refused '--container-unshare needs a value: NAMESPACE[,...]' "${in_image[@]}" --container-unshare=
	printf '0 true\n' | as_user tee "$user_home/multi.conf" >/dev/null
	run_fails crun "${in_image[@]}" --container-init --multi-prog "$user_home/multi.conf"
	expect_one_error '--container-unshare=pid and --container-init cannot be used with --multi-prog'
}
