#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# The GPUs that Slurm gave to a step, by CDI and by what is known of drivers. How
# they are divided among tasks is in job-gpu.bats.

load ../lib/helpers
load ../lib/images
load ../lib/gpu

setup() { gpu_setup; }
teardown() { gpu_teardown; }

shown='echo $(cd /dev && ls -d nvidia[0-9]* 2>/dev/null) : $CUDA_VISIBLE_DEVICES : $ROCR_VISIBLE_DEVICES : $ZE_AFFINITY_MASK : $GPU_DEVICE_ORDINAL'

@test "gpu: a step has those that Slurm gave to it on each node, and no others" {
	specification gpu.json nvidia.com/gpu
	gpu_ok crun -N2 --gres=gpu:1 "${in_image[@]}" sh -c "$shown"
	[[ $(grep -cx 'nvidia0 : 0 : 0 : 0 : 0' <<<"$output") == 2 ]] || fail "$output"
	hold 1
	gpu_ok crun -N2 --gres=gpu:2 "${in_image[@]}" sh -c "echo \$SLURMD_NODENAME; $shown; echo \$SLURM_STEP_GPUS"
	expect_line 'nvidia1 nvidia2 : 0,1 : 0,1 : 0,1 : 0,1'
	expect_line 'nvidia0 nvidia1 : 0,1 : 0,1 : 0,1 : 0,1'
	expect_line 1,2
	expect_no_leftovers
}

@test "gpu: a step without any sees none, whatever image, job and variables say" {
	specification gpu.json nvidia.com/gpu
	new_image
	push_image --env NVIDIA_VISIBLE_DEVICES=all --env CUDA_VERSION=12 gpu-none
	for with in NVIDIA_VISIBLE_DEVICES=all SLURM_STEP_GPUS=0,1 SLURM_JOB_GPUS=0,1; do
		gpu_ok as_user env "$with" CUDA_VISIBLE_DEVICES=0 srun --container-image="$ref" sh -c 'ls /dev | grep nvidia || echo none'
		expect_line none
	done
	gpu_ok batch --gres=gpu:2 --output=out --wrap "srun --gres=none --container-image=$ref sh -c 'ls /dev | grep nvidia || echo none'"
	run_ok as_user cat out
	expect_line none
}

@test "gpu: the image's variables say nothing about which" {
	specification gpu.json nvidia.com/gpu
	new_image
	push_image --env NVIDIA_VISIBLE_DEVICES=all --env CUDA_VISIBLE_DEVICES=3 --env ROCR_VISIBLE_DEVICES= gpu-all
	hold 2
	gpu_ok crun -w n1 --gres=gpu:1 --container-image="$ref" sh -c "$shown; echo \$NVIDIA_VISIBLE_DEVICES"
	[[ $output == $'nvidia2 : 0 : 0 : 0 : 0\nvoid' ]] || fail "$output"
}

@test "gpu: a batch script, the shell of salloc and their steps have theirs" {
	specification gpu.json nvidia.com/gpu
	hold 1
	printf '#!/bin/bash\n%s\n' "$shown" >"$user_home/gpu.sh"
	gpu_ok batch -w n1 --gres=gpu:2 "${in_image[@]}" --output=out gpu.sh
	run_ok as_user cat out
	[[ $output == 'nvidia1 nvidia2 : 0,1 : 0,1 : 0,1 : 0,1' ]] || fail "$output"
	gpu_ok batch -w n1 --gres=gpu:2 --output=out --wrap "srun ${in_image[*]} --gres=gpu:1 sh -c '$shown; echo \$SLURM_STEP_GPUS'"
	run_ok as_user cat out
	[[ $output == $'nvidia1 : 0 : 0 : 0 : 0\n1' ]] || fail "$output"
	gpu_ok as_user timeout 30 salloc --quiet -w n1 --gres=gpu:2 "${in_image[@]}" <<<"$shown"
	expect_match '^nvidia1 nvidia2 : 0,1 : 0,1 : 0,1 : 0,1'
	rm -f "$user_home/gpu.sh"
}

@test "gpu: users choose fewer, or none, and more of another kind" {
	specification gpu.json nvidia.com/gpu
	specification nic.json example.com/nic '{"env": ["NIC=1"]}'
	hold 1
	gpu_ok as_user env NVIDIA_VISIBLE_DEVICES=2 srun -w n1 --gres=gpu:2 "${in_image[@]}" sh -c "$shown"
	[[ $output == 'nvidia2 : 0 : 0 : 0 : 0' ]] || fail "$output"
	gpu_ok as_user env NVIDIA_VISIBLE_DEVICES=none srun -w n1 --gres=gpu:2 "${in_image[@]}" sh -c "$shown"
	expect_match '^: 1,2 :'
	gpu_ok crun -w n1 --gres=gpu:2 "${in_image[@]}" --container-device=none sh -c "$shown"
	expect_match '^: 1,2 :'
	gpu_fails as_user env NVIDIA_VISIBLE_DEVICES=0 srun -w n1 --gres=gpu:2 "${in_image[@]}" true
	expect_one_error "NVIDIA_VISIBLE_DEVICES=\"0\": none of the step's GPUs has such a number or name: unset it"
	gpu_ok crun -w n1 --gres=gpu:1 "${in_image[@]}" --container-device=example.com/nic=0 sh -c "$shown; echo \$NIC"
	expect_line 'nvidia0 nvidia1 : 0 : 0 : 0 : 0'
	expect_line 1
	gpu_ok crun -w n1 --gres=gpu:1 "${in_image[@]}" --container-env=CUDA_VISIBLE_DEVICES=GPU-x sh -c "$shown"
	expect_line 'nvidia1 : GPU-x : 0 : 0 : 0'
}

@test "gpu: the site chooses the kind, or has users ask" {
	specification amd.json amd.com/gpu '{"env": ["KIND=amd"]}'
	gpu_ok crun --gres=gpu:1 "${in_image[@]}" sh -c 'echo $KIND'
	expect_line amd
	specification other.json vendor.example/gpu '{"env": ["KIND=other"]}'
	site_config "[cdi]
		directories = ['$cdi']
		[gpu]
		kinds = ['vendor.example/gpu']"
	gpu_ok crun --gres=gpu:1 "${in_image[@]}" sh -c 'echo $KIND'
	expect_line other
	site_config "[cdi]
		directories = ['$cdi']
		[gpu]
		slurm = false"
	gpu_ok crun --gres=gpu:1 "${in_image[@]}" sh -c "$shown; echo none\$KIND"
	[[ $output == $': 0 : 0 : 0 : 0\nnone' ]] || fail "$output"
}

@test "gpu: one that the specification lacks is an error that names it" {
	specification gpu.json nvidia.com/gpu
	jq 'del(.devices[1, 4])' "$cdi/gpu.json" >"$cdi/less.json"
	rm "$cdi/gpu.json"
	gpu_fails crun --gres=gpu:2 "${in_image[@]}" true
	expect_one_error 'hook device: Slurm gave the step GPU 1, and this node has no CDI device nvidia.com/gpu of that name'
	expect_line 'brolga: hint: of nvidia.com/gpu it has 0, 2, 3'
	nodes_idle
}

@test "gpu: a node without specification and driver is a warning" {
	gpu_ok crun -N2 --gres=gpu:1 "${in_image[@]}" sh -c "$shown"
	[[ $(grep -c "brolga: warning: the step's GPUs are not shown: this node has no CDI specification for nvidia.com/gpu, amd.com/gpu, intel.com/gpu, nor a driver" <<<"$output") == 2 ]] || fail "$output"
}

# driver VERSION: plays NVIDIA's driver on all nodes; n GPUs in the order of Slurm's.
driver() {
	local host=$BROLGA_CLUSTER_DIR/host lib i
	mkdir -p "$host"/{dev/dri,usr/lib,usr/bin,etc,run/nvidia-persistenced,lib/firmware/nvidia/"$1"} "$host/proc/driver/nvidia"
	echo "NVRM version: $1" >"$host/proc/driver/nvidia/version"
	for i in 0 1 2 3; do
		mkdir -p "$host/proc/driver/nvidia/gpus/0000:0$i:00.0"
		printf 'GPU UUID: \t GPU-%d\nDevice Minor: \t %d\n' "$i" "$i" >"$host/proc/driver/nvidia/gpus/0000:0$i:00.0/information"
		mknod -m 0666 "$host/dev/nvidia$i" c 60 "$i"
	done
	mknod -m 0666 "$host/dev/nvidiactl" c 60 255
	mknod -m 0666 "$host/dev/nvidia-uvm" c 60 254
	for lib in libcuda:f libnvidia-ml:g libnvidia-encode:h; do
		gcc -shared -fPIC -Wl,-soname,"${lib%:*}.so.1" -o "$host/usr/lib/${lib%:*}.so.$1" -x c - <<<"int ${lib#*:}(void) { return 0; }"
	done
	echo /usr/lib >"$host/etc/ld.so.conf"
	ldconfig -r "$host"
	printf '#!/bin/sh\necho tool of %s\n' "$1" >"$host/usr/bin/nvidia-smi"
	chmod 0755 "$host/usr/bin/nvidia-smi"
	touch "$host/lib/firmware/nvidia/$1/gsp_ga10x.bin"
}

@test "gpu: without CDI the parts of NVIDIA's driver that are wanted are found" {
	local libs=/usr/lib/x86_64-linux-gnu
	driver 550.54
	hold 1
	gpu_ok crun -w n1 --gres=gpu:2 "${in_image[@]}" sh -c "$shown; ls -d /dev/nvidiactl /dev/nvidia-uvm; nvidia-smi
		LD_PRELOAD='libcuda.so.1 libnvidia-ml.so.1' grep -o '/usr.*\(cuda\|nvidia\).*' /proc/self/maps | sort -u
		ls $libs | grep nvidia-encode; ls /lib/firmware/nvidia/550.54"
	[[ $output == "nvidia1 nvidia2 : 0,1 : 0,1 : 0,1 : 0,1
/dev/nvidia-uvm
/dev/nvidiactl
tool of 550.54
$libs/libcuda.so.550.54
$libs/libnvidia-ml.so.550.54
gsp_ga10x.bin" ]] || fail "$output"
	gpu_ok as_user env NVIDIA_DRIVER_CAPABILITIES=video srun -w n1 --gres=gpu:1 "${in_image[@]}" sh -c "ls $libs/ | grep -E 'cuda|nvidia'"
	[[ $output == $'libnvidia-encode.so.1\nlibnvidia-encode.so.550.54' ]] || fail "$output"
	gpu_ok crun "${in_image[@]}" sh -c "ls /dev $libs | grep -E 'cuda|nvidia' || echo none"
	expect_line none
	expect_no_leftovers
}

@test "gpu: a library of the image's own driver is covered by the host's" {
	local libs=/usr/lib/x86_64-linux-gnu
	driver 550.54
	new_image
	mkdir -p "$image/opt/old" "$image/lib64" "$image$libs"
	gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$image/opt/old/libcuda.so.470.1" -x c - <<<'int old(void) { return 0; }'
	cp -L "$libs"/lib{c,dl,pthread}.so.[0-9] "$image$libs"
	cp -L "$libs/ld-linux-x86-64.so.2" "$image/lib64"
	cp -L /bin/cat "$image/bin/glibc-cat"
	printf '%s\n' /opt/old "$libs" >"$image/etc/ld.so.conf"
	ldconfig -r "$image"
	push_image gpu-old
	gpu_ok crun --gres=gpu:1 --container-image="$ref" sh -c "LD_PRELOAD=libcuda.so.1 glibc-cat /proc/self/maps | grep -m1 libcuda; stat -c %s /opt/old/libcuda.so.470.1"
	expect_match " $(stat -c %i "$BROLGA_CLUSTER_DIR/host/usr/lib/libcuda.so.550.54") +/"
	expect_line "$(stat -c %s "$BROLGA_CLUSTER_DIR/host/usr/lib/libcuda.so.550.54")"
}

@test "gpu: without CDI each of AMD's has its render node and its card" {
	local host=$BROLGA_CLUSTER_DIR/host i
	mkdir -p "$host/dev/dri"
	mknod -m 0666 "$host/dev/kfd" c 60 200
	for i in 0 1 2 3; do
		mkdir -p "$host/sys/class/kfd/kfd/topology/nodes/$((i + 1))" "$host/sys/class/drm/renderD$((131 - i))/device/drm/card$i"
		printf 'simd_count 440\ndrm_render_minor %d\n' "$((131 - i))" >"$host/sys/class/kfd/kfd/topology/nodes/$((i + 1))/properties"
		mknod -m 0666 "$host/dev/dri/renderD$((131 - i))" c 60 "$((131 - i))"
		mknod -m 0666 "$host/dev/dri/card$i" c 60 "$i"
	done
	hold 1
	gpu_ok crun -w n1 --gres=gpu:2 "${in_image[@]}" sh -c 'cd /dev; ls kfd dri/*; echo $ROCR_VISIBLE_DEVICES'
	[[ $output == $'dri/card1\ndri/card2\ndri/renderD129\ndri/renderD130\nkfd\n0,1' ]] || fail "$output"
}
