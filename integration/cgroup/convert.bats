#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Conversions where Slurm limits memory with cgroups: an image of the store is for
# everybody, so no job pays for it, and no job's limits hold it up.

load ../lib/helpers
load ../lib/lifecycle

# memory_cgroup PID: its path in the hierarchy that counts memory (cgroups(7)).
memory_cgroup() { awk -F: '$2 ~ /(^|,)memory(,|$)/ || $2 == "" {path = $3; if ($2) exit} END {print path}' "/proc/$1/cgroup"; }

# memory_files PID NAME...: the first file of its memory cgroup that there is.
memory_file() {
	local pid=$1 dir name
	shift
	for dir in /sys/fs/cgroup/memory /sys/fs/cgroup; do
		for name in "$@"; do
			if [[ -e $dir$(memory_cgroup "$pid")/$name ]]; then
				echo "$dir$(memory_cgroup "$pid")/$name"
				return
			fi
		done
	done
}

# On the node of these tests: a killed helper leaves one for the next conversion of its node.
no_cgroups() { [[ -z $(find /sys/fs/cgroup -path "*slurm_n1/*" -name 'brolga-*' -print -quit) ]]; }

@test "cgroup: a conversion for a job with little memory counts for the node and not for the job" {
	ref=$(fresh_image 20)
	slow_conversions
	in_background crun --mem=50 -w n1 --container-image="$ref" cat /stamp
	conversions_stuck
	for pid in $(our_programs bin/brolga convert) $(tar2sqfs_running); do
		[[ $(memory_cgroup "$pid") =~ /brolga-convert-1$ ]] || fail "$(cat "/proc/$pid/cgroup")"
		(($(<"$(memory_file "$pid" memory.limit_in_bytes memory.max)") == 4 << 30))
		! grep -q '/step_' "/proc/$pid/cgroup" || fail "it is the step's: $(cat "/proc/$pid/cgroup")"
	done
	fast_conversions
	background_ends
	((status == 0)) || fail "$output"
	expect_match '^life/'
	retry 10 no_cgroups || fail "left: $(find /sys/fs/cgroup -name 'brolga-*')"
	expect_clean
}

@test "cgroup: a suspended job does not hold up the conversion that others wait for" {
	ref=$(fresh_image 20)
	slow_conversions
	in_background crun -w n1 --container-image="$ref" cat /stamp
	conversions_stuck
	job=$(squeue --noheader --user="$BROLGA_TEST_USER" --format=%A)
	scontrol suspend "$job"
	fast_conversions
	# It is the same user's, who has one turn on the node.
	run_ok crun -w n1 --container-image="$ref" cat /stamp
	expect_match '^life/'
	scontrol resume "$job"
	background_ends
	((status == 0)) || fail "$output"
	(($(conversions) == 1))
	expect_clean
}

@test "cgroup: memory that no limit of a process counts ends the conversion with words" {
	ref=$(fresh_image)
	site_config 'convert.memory = "1g"'
	count_conversions
	filled=/dev/shm/brolga-filled-$$
	sed -i 's|^sandbox.write = \[|&"/dev/shm", |' "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	sed -i "s|^exec|head -c 2300M /dev/zero >$filled\nexec|" "$tools/tar2sqfs"
	run_fails crun -w n1 --container-image="$ref" cat /stamp
	rm -f "$filled"
	expect_match "brolga: error: .*: the image needs more memory than the site allows\$"
	expect_match "brolga: hint: an administrator can raise convert.memory in the site's configuration\$"
	no_drafts || fail "$(store_drafts)"
	sed -i '/^head/d' "$tools/tar2sqfs"
	run_ok crun -w n1 --container-image="$ref" cat /stamp
	retry 10 no_cgroups
	expect_clean
}

@test "cgroup: what a killed helper has left is used and removed by the next conversion" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -w n1 --container-image="$ref" cat /stamp
	conversions_stuck
	kill -KILL "$(helpers)"
	background_ends
	retry 10 no_drafts
	fast_conversions
	run_ok crun -w n1 --container-image="$ref" cat /stamp
	retry 10 no_cgroups || fail "left: $(find /sys/fs/cgroup -name 'brolga-*')"
	expect_clean
}
