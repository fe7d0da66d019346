#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Containers under job_container/tmpfs: a job has its own /tmp and /dev/shm, and
# a container of it shows those, not the host's.

load ../lib/helpers
load ../lib/lifecycle

# job LINE...: runs a batch script and prints what its steps wrote.
job() {
	printf '%s\n' '#!/bin/bash' "image=$BROLGA_TEST_IMAGE" "$@" >"$user_home/job.sh"
	as_user sbatch --quiet --wait "${job_options[@]}" -o job.out job.sh
	as_user cat job.out
}

job_options=(-N1)

teardown_file() { rm -f /tmp/host-file /dev/shm/host-file; }

setup_file() { touch /tmp/host-file /dev/shm/host-file; }

@test "job container: a step runs in its container on every node" {
	run_ok crun -N4 --ntasks-per-node=2 --container-image="$BROLGA_TEST_IMAGE" \
		bash -c 'echo "$SLURMD_NODENAME $(id -un) $(readlink /proc/self/ns/mnt)"'
	(($(grep -c mnt: <<<"$output") == 8))
	(($(grep mnt: <<<"$output" | sort -u | wc -l) == 4))
	expect_clean
}

@test "job container: a mount of /tmp shows the job's, not the host's" {
	run_ok job \
		'srun bash -c "echo from-plain >/tmp/plain"' \
		'srun --container-image=$image --container-mounts=/tmp bash -c "cat /tmp/plain; ls /tmp; echo from-container >/tmp/container"' \
		'srun cat /tmp/container'
	expect_line from-plain
	expect_line from-container
	refute_match host-file
	[[ ! -e /tmp/plain && ! -e /tmp/container ]]
	expect_clean
}

@test "job container: a mount of /tmp elsewhere shows the job's too" {
	run_ok job \
		'srun touch /tmp/plain' \
		'srun --container-image=$image --container-mounts=/tmp:/scratch/of/job ls /scratch/of/job'
	expect_line plain
	refute_match host-file
	expect_clean
}

@test "job container: the host's root directory as an image shows the job's /tmp, not the host's" {
	run_ok job \
		'srun touch /tmp/plain' \
		'srun --container-image=dir:/ bash -c "ls /tmp; echo from-container >/tmp/container"' \
		'srun cat /tmp/container'
	expect_line plain
	expect_line from-container
	refute_match host-file
	[[ ! -e /tmp/plain && ! -e /tmp/container ]]
	expect_clean
}

@test "job container: without a mount /tmp is the container's own" {
	run_ok job \
		'srun touch /tmp/plain' \
		'srun --container-image=$image bash -c "ls /tmp; touch /tmp/container"' \
		'srun ls /tmp'
	refute_match '^container|host-file'
	(($(grep -cx plain <<<"$output") == 1))
}

@test "job container: /dev/shm is the job's" {
	run_ok job \
		'srun bash -c "echo from-plain >/dev/shm/plain"' \
		'srun --container-image=$image bash -c "cat /dev/shm/plain; ls /dev/shm; echo from-container >/dev/shm/container"' \
		'srun cat /dev/shm/container'
	expect_line from-plain
	expect_line from-container
	refute_match host-file
	[[ ! -e /dev/shm/plain && ! -e /dev/shm/container ]]
	expect_clean
}

@test "job container: each node of a job has its own" {
	job_options=(-N2 -n2)
	run_ok job \
		'srun bash -c "touch /tmp/on.\$SLURMD_NODENAME"' \
		'srun --container-image=$image --container-mounts=/tmp bash -c "echo \$SLURMD_NODENAME sees \$(cd /tmp; ls)"'
	expect_line 'n1 sees on.n1'
	expect_line 'n2 sees on.n2'
	expect_clean
}

@test "job container: a batch script in a container shows the job's /tmp" {
	run_ok as_user sbatch --quiet --wait -o job.out --container-image="$BROLGA_TEST_IMAGE" --container-mounts=/tmp \
		--wrap 'echo in $(. /etc/os-release; echo $ID); ls /tmp'
	run_ok as_user cat job.out
	expect_line 'in debian'
	refute_match host-file
	expect_clean
}

@test "job container: a cold image is pulled and converted" {
	ref=$(fresh_image)
	at_submission crun --hold -N2 -n2 --container-image="$ref" --container-mounts=/tmp cat /stamp
	forget_cache
	count_conversions
	release_jobs
	background_ends
	((status == 0)) || fail "$output"
	(($(grep -c '^life/' <<<"$output") == 2))
	(($(conversions) == 1))
	expect_clean
}

@test "job container: scancel while a step runs and while an image is converted" {
	in_background crun -N2 -n2 --container-image="$BROLGA_TEST_IMAGE" --container-mounts=/tmp bash -c "$until_go"
	tasks_run 2
	as_user scancel --user "$BROLGA_TEST_USER"
	background_ends
	((status != 0))
	expect_clean
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N2 -n2 --container-image="$ref" bash -c "$until_go"
	conversions_stuck
	as_user scancel --user "$BROLGA_TEST_USER"
	background_ends
	((status != 0))
	expect_clean
}

@test "job container: SIGKILL of the helper while it works, with one clear line" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N1 -n2 --container-image="$ref" bash -c "$until_go"
	conversions_stuck
	kill -KILL "$(helpers)"
	background_ends
	((status != 0))
	expect_line 'brolga: error: the helper ended without an answer'
	expect_clean
}

@test "job container: a running step shows nothing in the host's mount table" {
	note_host_mounts
	in_background crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts=/tmp bash -c "$until_go"
	tasks_run 1
	expect_no_new_host_mounts
	go_on
	background_ends
	expect_clean
}
