#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# GPUs divided among the tasks and steps of a job. A task's GPU is the same card in
# the container as without one, whatever number it has there.

load ../lib/helpers
load ../lib/images
load ../lib/gpu

setup() {
	gpu_setup
	specification gpu.json nvidia.com/gpu
}
teardown() { gpu_teardown; }

# On the host a number is the card's; in the container the number's place among those
# that are shown.
on_host='for n in $(echo $CUDA_VISIBLE_DEVICES | tr , " "); do echo $SLURM_PROCID $SLURMD_NODENAME card $n; done'
inside='set -- $(ls -d /dev/nvidia[0-9]); for n in $(echo $CUDA_VISIBLE_DEVICES | tr , " "); do eval echo $SLURM_PROCID $SLURMD_NODENAME card \${$((n + 1))#/dev/nvidia}; done'

# same_cards OPTION...: each task has the cards that it has without a container.
same_cards() {
	local plain
	gpu_ok crun "$@" sh -c "$on_host"
	plain=$(sort <<<"$output")
	[[ -n $plain ]] || fail "no GPU without a container"
	gpu_ok crun "$@" "${in_image[@]}" sh -c "$inside"
	[[ $(sort <<<"$output") == "$plain" ]] || fail "in the container:"$'\n'"$output"$'\n'"without:"$'\n'"$plain"
}

@test "gpu: each task has its own with --gpus-per-task" {
	same_cards -w n1 -n4 --gpus-per-task=1
	same_cards -w n1 -n2 --gpus-per-task=2
	hold 1
	same_cards -w n1 -n3 --gpus-per-task=1
	same_cards -w n1 -n1 --gpus-per-task=2
	gpu_ok crun -w n1 -n2 --gpus-per-task=1 "${in_image[@]}" sh -c 'echo $(ls -d /dev/nvidia*) has $CUDA_VISIBLE_DEVICES $ROCR_VISIBLE_DEVICES $ZE_AFFINITY_MASK $GPU_DEVICE_ORDINAL'
	expect_line '/dev/nvidia1 /dev/nvidia2 has 0 0 0 0'
	expect_line '/dev/nvidia1 /dev/nvidia2 has 1 1 1 1'
}

@test "gpu: each task has those that --gpu-bind gives to it, shuffled too" {
	for bind in map_gpu:3,2,1,0 map_gpu:1,3 mask_gpu:0x9,0x6 single:2; do
		same_cards -w n1 -n4 --gpus=4 --gpu-bind="$bind"
	done
}

# Slurm sets no numbers here, or those of all.
@test "gpu: with --gpu-bind=none all tasks have all" {
	hold 1
	gpu_ok crun -w n1 -n2 --gpus=2 --gpu-bind=none "${in_image[@]}" sh -c 'echo $(ls -d /dev/nvidia*) has ${CUDA_VISIBLE_DEVICES-0,1}'
	[[ $(grep -cx '/dev/nvidia1 /dev/nvidia2 has 0,1' <<<"$output") == 2 ]] || fail "$output"
}

@test "gpu: each task has its own on nodes with different ones" {
	hold 2
	same_cards -N2 -n4 --ntasks-per-node=2 --gpus-per-task=1
	same_cards -N2 -n2 --gpus-per-node=2
	same_cards -N2 -n4 --ntasks-per-node=2 --gpus-per-node=2 --gpu-bind=single:1
}

@test "gpu: steps that run together have different ones, and those that overlap the same" {
	cat >"$user_home/steps.sh" <<-SCRIPT
		#!/bin/bash
		show='ls -d /dev/nvidia* | xargs'
		both='until [ -s step-1.out ] && [ -s step-2.out ]; do sleep 0.1; done'
		rm -f step-?.out
		for i in 1 2; do
			srun --exact -n1 --gpus=2 ${in_image[@]} sh -c "\$show; \$both" >step-\$i.out &
		done
		wait
		srun --overlap -n1 --gpus=4 ${in_image[@]} sh -c "\$show" >step-3.out
	SCRIPT
	gpu_ok batch -w n1 -n4 --gres=gpu:4 --output=job.out steps.sh
	run_ok as_user cat step-1.out step-2.out
	[[ $(sort <<<"$output") == $'/dev/nvidia0 /dev/nvidia1\n/dev/nvidia2 /dev/nvidia3' ]] || fail "$output"
	run_ok as_user cat step-3.out
	expect_line '/dev/nvidia0 /dev/nvidia1 /dev/nvidia2 /dev/nvidia3'
	rm -f "$user_home"/step-?.out "$user_home/steps.sh"
}

@test "gpu: with all named by the user the numbers stay the node's" {
	hold 2
	gpu_ok crun -w n1 --gpus=2 "${in_image[@]}" --container-device=nvidia.com/gpu=all sh -c 'echo $(ls -d /dev/nvidia*) has $CUDA_VISIBLE_DEVICES'
	expect_line '/dev/nvidia0 /dev/nvidia1 /dev/nvidia2 /dev/nvidia3 has 2,3'
	gpu_ok crun -w n1 --gpus=1 "${in_image[@]}" --container-device=nvidia.com/gpu=0 sh -c 'echo $(ls -d /dev/nvidia*) has $CUDA_VISIBLE_DEVICES'
	expect_line '/dev/nvidia0 /dev/nvidia2 has 1'
}

@test "gpu: the namespaces and the root of a container change nothing" {
	hold 1
	for with in --container-unshare=pid,ipc --container-remap-root --container-readonly; do
		gpu_ok crun -w n1 -n2 --gpus-per-task=1 "${in_image[@]}" "$with" sh -c 'echo $(ls -d /dev/nvidia*) has $CUDA_VISIBLE_DEVICES'
		expect_line '/dev/nvidia1 /dev/nvidia2 has 0'
		expect_line '/dev/nvidia1 /dev/nvidia2 has 1'
	done
	expect_no_leftovers
}
