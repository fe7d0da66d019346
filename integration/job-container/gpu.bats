#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# GPUs under job_container/tmpfs, where a container is made twice.

load ../lib/helpers
load ../lib/images
load ../lib/gpu

setup() {
	gpu_setup
	specification gpu.json nvidia.com/gpu
}
teardown() { gpu_teardown; }

@test "gpu: each task has its own in the job's own mount namespace" {
	hold 1
	gpu_ok crun -w n1 -n2 --gpus-per-task=1 "${in_image[@]}" sh -c 'echo $(ls -d /dev/nvidia*) has $CUDA_VISIBLE_DEVICES'
	expect_line '/dev/nvidia1 /dev/nvidia2 has 0'
	expect_line '/dev/nvidia1 /dev/nvidia2 has 1'
	expect_no_leftovers
}
