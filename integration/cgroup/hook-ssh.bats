#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-ssh where Slurm has its steps in cgroups.

load ../lib/helpers
load ../lib/ssh

setup_file() { make_ssh_image; }

@test "ssh: servers and sessions are in the step's cgroups, and end with it" {
	load_ssh_image
	# shellcheck disable=SC2016 # for the shell of the task
	run_ok in_step -N2 --container-image="$ssh_image" '
		sort /proc/self/cgroup | grep -E "slurm|^0::" >task
		ssh localhost "sort /proc/self/cgroup | grep -E \"slurm|^0::\"" | diff task - && echo same
		ssh n2 "grep -o /step_[^/]* /proc/self/cgroup | sort -u; sleep 767 >/dev/null 2>&1 </dev/null &"
		rm task'
	expect_line same
	expect_line "/step_0"
	retry 10 no_servers
	! pgrep -u "$BROLGA_TEST_USER" -f '^sleep 767' || fail "a process is left"
	expect_no_leftovers
	nodes_idle
}
