#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# GPUs with ConstrainDevices: a step's cgroup opens its own GPUs and closes the
# others, and Slurm counts the step's own.

load ../lib/helpers
load ../lib/images
load ../lib/gpu

setup() {
	gpu_setup
	specification gpu.json nvidia.com/gpu
}
teardown() { gpu_teardown; }

# What opening each device says. The devices have no driver.
try='for d in /dev/nvidia[0-9]; do echo ${d#/dev/nvidia} $(cat $d 2>&1 | grep -oE "No such device or address|Operation not permitted"); done'

@test "gpu: the step's are open, and numbers are those that Slurm has given" {
	hold 1
	gpu_ok crun -w n1 --gpus=2 "${in_image[@]}" sh -c "$try; echo \$SLURM_STEP_GPUS : \$CUDA_VISIBLE_DEVICES"
	[[ $output == $'1 No such device or address\n2 No such device or address\n1,2 : 0,1' ]] || fail "$output"
	run_ok as_user env NVIDIA_VISIBLE_DEVICES=1 srun -w n1 --gpus=2 "${in_image[@]}" sh -c 'echo $(ls -d /dev/nvidia*) : $CUDA_VISIBLE_DEVICES'
	expect_line '/dev/nvidia2 : 0'
	expect_no_leftovers
}

@test "gpu: others can be named, and stay closed" {
	hold 1
	gpu_ok crun -w n1 --gpus=1 "${in_image[@]}" --container-device=nvidia.com/gpu=all sh -c "$try; echo \$CUDA_VISIBLE_DEVICES"
	[[ $output == $'0 Operation not permitted\n1 No such device or address\n2 Operation not permitted\n3 Operation not permitted\n0' ]] || fail "$output"
	gpu_ok crun -w n1 "${in_image[@]}" --container-device=nvidia.com/gpu=0 sh -c "$try"
	[[ $output == '0 Operation not permitted' ]] || fail "$output"
	gpu_ok crun -w n1 "${in_image[@]}" --container-remap-root --container-device=nvidia.com/gpu=0 sh -c "$try"
	[[ $output == '0 Operation not permitted' ]] || fail "$output"
}

@test "gpu: a task's variables and open devices are the same as without a container" {
	what='for d in DIR[0-3]; do [ ! -e $d ] || echo $SLURM_PROCID ${d#DIR} $(cat $d 2>&1 | grep -oE "No such device or address|Operation not permitted"); done; echo $SLURM_PROCID $CUDA_VISIBLE_DEVICES $ROCR_VISIBLE_DEVICES'
	for bind in "--gpus-per-task=1" "--gpus=2 --gpu-bind=map_gpu:1,0" "--gpus=2 --gpu-bind=none"; do
		# shellcheck disable=SC2086 # several words
		gpu_ok crun -w n1 -n2 $bind sh -c "${what//DIR/$cards/card}"
		plain=$(grep -v ' [23] Operation not permitted$' <<<"$output" | sort)
		# shellcheck disable=SC2086 # several words
		gpu_ok crun -w n1 -n2 $bind "${in_image[@]}" sh -c "${what//DIR//dev/nvidia}"
		[[ $(sort <<<"$output") == "$plain" ]] || fail "$bind in the container:"$'\n'"$output"$'\n'"without:"$'\n'"$plain"
	done
}
