#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Containers with proctrack/cgroup and task/cgroup: tasks stay in the cgroups
# that Slurm made, and there are no others.

load ../lib/helpers
load ../lib/lifecycle

no_cgroup_of_ours() { [[ -z $(find /sys/fs/cgroup -name '*brolga*' -print -quit) ]]; }

@test "cgroup: a task in a container is in the cgroups of a task without" {
	cat >"$user_home/job.sh" <<-SCRIPT
		#!/bin/bash
		srun cat /proc/self/cgroup >plain.out
		srun --container-image=$BROLGA_TEST_IMAGE cat /proc/self/cgroup >container.out
	SCRIPT
	run_ok as_user sbatch --wait -o job.out job.sh
	run_ok as_user cat container.out
	expect_match '/slurm_n1/uid_[0-9]+/job_[0-9]+/step_1'
	[[ $output == "$(sed 's/step_0/step_1/' "$user_home/plain.out")" ]]
}

@test "cgroup: tasks on all nodes are in their own node's cgroups" {
	run_ok crun -N4 --ntasks-per-node=2 --container-image="$BROLGA_TEST_IMAGE" \
		bash -c 'grep -o "slurm_n.*" /proc/self/cgroup | sort -u | sed "s/^/$SLURMD_NODENAME /"'
	for node in n1 n2 n3 n4; do
		expect_match "^$node slurm_$node/uid_[0-9]+/job_[0-9]+/step_0"
	done
	refute_match '^n1 slurm_n[234]|^n2 slurm_n[134]|^n3 slurm_n[124]|^n4 slurm_n[123]'
	expect_clean
}

@test "cgroup: there is none of ours while a step runs" {
	in_background crun -N2 -n2 --container-image="$BROLGA_TEST_IMAGE" bash -c "$until_go"
	tasks_run 2
	no_cgroup_of_ours
	go_on
	background_ends
	((status == 0)) || fail "$output"
	expect_clean
}

@test "cgroup: there are those of conversions only while images are converted, and for memory only" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N2 -n2 --container-image="$ref" cat /stamp
	conversions_stuck
	run find /sys/fs/cgroup -name '*brolga*'
	expect_match '^/sys/fs/cgroup/memory/slurm_n[12]/brolga-convert-1$'
	[[ ${#lines[@]} == 1 ]] || fail "$output"
	fast_conversions
	background_ends
	((status == 0)) || fail "$output"
	retry 10 no_cgroup_of_ours
	expect_clean
}

@test "cgroup: a process that a step leaves behind goes with the step" {
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" \
		bash -c 'setsid sleep 311 >/dev/null 2>&1 & sleep 0.2; disown; echo left'
	expect_line left
	expect_clean
	run_fails pgrep -u "$BROLGA_TEST_USER" -f 'sleep 311'
}

@test "cgroup: steps that end at once leave no cgroup of their job" {
	local node pids
	for _ in {1..10}; do
		pids=()
		for node in n1 n2 n3 n4; do
			crun -w "$node" --container-image="$BROLGA_TEST_IMAGE" true 3>&- &
			pids+=("$!")
		done
		wait "${pids[@]}"
	done
	retry 5 no_job_cgroups || fail "left: $(job_cgroups)"
}

job_cgroups() { compgen -G "/sys/fs/cgroup/*/slurm_n*/uid_$(id -u "$BROLGA_TEST_USER")/job_*"; }

no_job_cgroups() { ! job_cgroups >/dev/null; }

@test "cgroup: scancel of a running step" {
	in_background crun -N2 -n4 --container-image="$BROLGA_TEST_IMAGE" bash -c "trap '' TERM; $until_go"
	tasks_run 4
	as_user scancel --user "$BROLGA_TEST_USER"
	background_ends
	expect_match 'Job step aborted'
	expect_clean
}

@test "cgroup: scancel while an image is converted" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N2 -n4 --container-image="$ref" bash -c "$until_go"
	conversions_stuck
	as_user scancel --user "$BROLGA_TEST_USER"
	background_ends
	((status != 0))
	[[ ! -e $user_home/started ]]
	expect_clean
	retry 5 no_drafts || fail "left in the store: $(store_drafts)"
}

@test "cgroup: SIGKILL of the helper while it works, with one clear line" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N1 -n4 --container-image="$ref" bash -c "$until_go"
	conversions_stuck
	kill -KILL "$(helpers)"
	background_ends
	((status != 0))
	expect_line 'brolga: error: the helper ended without an answer'
	(($(grep -c 'brolga: error:' <<<"$output") == 1))
	[[ ! -e $user_home/started ]]
	expect_clean
}

@test "cgroup: SIGKILL of slurmstepd while a step runs" {
	in_background crun -N1 -n2 --container-image="$BROLGA_TEST_IMAGE" bash -c "$until_go"
	tasks_run 2
	kill -KILL "$(steps)"
	as_user scancel --user "$BROLGA_TEST_USER"
	background_ends
	kill_orphans
	expect_clean
}

# servers: the processes that serve squashfs files to the test user's step.
servers() { pgrep -u "$BROLGA_TEST_USER" -f '^/usr/bin/squashfuse_ll -f /proc/self/fd/3'; }

no_servers() { ! servers >/dev/null; }

@test "cgroup: each squashfuse is in the cgroups of its step, and goes with it" {
	local tree task pid
	tree=$BATS_TEST_TMPDIR/tree
	make_tree "$tree"
	mksquashfs "$tree" "$user_home/app.sqsh" -all-root -noappend -quiet -no-progress >/dev/null
	chown "$BROLGA_TEST_USER:" "$user_home/app.sqsh"
	as_user rm -rf noted
	as_user mkdir noted
	as_user tee serve >/dev/null <<<$'#!/bin/bash\ncat /proc/$$/cgroup >>noted/cgroup\nexec /usr/bin/squashfuse_ll "$@"'
	sed -i "s|>noted|>$user_home/noted|" "$user_home/serve"
	chmod 0755 "$user_home/serve"
	site_config "squashfuse = \"$user_home/serve\""
	site_config "sandbox.write = [\"$user_home/noted\"]"
	site_config 'sandbox.read = ["/proc"]'
	in_background crun --container-image=./app.sqsh --container-mounts=./app.sqsh:/mnt:sqsh bash -c "$until_go"
	tasks_run 1
	(($(servers | wc -l) == 2)) || fail "$(servers)"
	task=$(pgrep -u "$BROLGA_TEST_USER" -f 'echo "\$SLURMD_NODENAME"' -n)
	# From its beginning: its user could have it start something that stays outside.
	cat "/proc/$task"/cgroup{,} | diff "$user_home/noted/cgroup" -
	for pid in $(servers); do
		diff "/proc/$pid/cgroup" "/proc/$task/cgroup"
		# One that does not end by itself, as if its user had taken it over.
		kill -STOP "$pid"
	done
	as_user scancel --user "$BROLGA_TEST_USER"
	retry 30 no_servers
	background_ends
	expect_clean
}

@test "cgroup: a pull on a node is the step's, with what it runs for its user" {
	as_user mkdir -p .config/enroot
	# shellcheck disable=SC2016 # for the shell of the pull
	printf 'machine %s login %s password $(cat /proc/self/cgroup >cgroup; setsid sleep 317 >/dev/null 2>&1 </dev/null & echo %s)\n' \
		"$BROLGA_TEST_PRIVATE_REGISTRY" "${BROLGA_TEST_PRIVATE_LOGIN%:*}" "${BROLGA_TEST_PRIVATE_LOGIN#*:}" |
		sed "s|>cgroup|>$user_home/cgroup|" | install -o "$BROLGA_TEST_USER" -m 0600 /dev/stdin "$user_home/.config/enroot/.credentials"
	at_submission crun --hold --container-image="$BROLGA_TEST_PRIVATE_IMAGE" /no/such/program
	forget_cache
	pkill -u "$BROLGA_TEST_USER" -f '^sleep 317'
	as_user rm -f cgroup
	release_jobs
	background_ends 60
	rm -r "$user_home/.config/enroot"
	expect_match 'execve.*: /no/such/program: No such file'
	grep -E '/slurm_n1/uid_[0-9]+/job_[0-9]+/step_0' "$user_home/cgroup" || fail "$(cat "$user_home/cgroup")"
	retry 20 not_running "^sleep 317" || fail "a process is left"
	expect_clean
}

not_running() { ! pgrep -u "$BROLGA_TEST_USER" -f "$1"; }

@test "cgroup: a hook at poststop runs when the step is gone, and leaves nothing" {
	local dir=$BROLGA_CLUSTER_DIR/hooks
	mkdir "$dir"
	# Waited for by slurmstepd, so what it finds is what the epilog finds. One that is
	# dead may wait for process 1 to take notice.
	printf '#!/bin/bash\npgrep --runstates DRST -x sleep -u %s >"${0%%/*}/ended"; true\n' "$BROLGA_TEST_USER" >"$dir/program"
	chmod 0755 "$dir/program"
	jq -n --arg path "$dir/program" '{version: "1.0.0", hook: {path: $path}, when: {always: true}, stages: ["poststop"]}' >"$dir/hook.json"
	sed -i "s|^hooks.directories = .*|hooks.directories = [\"$dir\"]|" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	run_ok crun -w n1 --container-image="$BROLGA_TEST_IMAGE" bash -c 'sleep 600 & true'
	retry 10 test -e "$dir/ended"
	[[ ! -s $dir/ended ]] || fail "still runs: $(cat "$dir/ended")"
	rm -r "$dir"
	expect_clean
}
