#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-device. What it must not do is in security-devices.bats.

load ../lib/helpers
load ../lib/images
load ../lib/gpu

setup() { gpu_setup; }
teardown() { gpu_teardown; }

shown='cd /dev && ls -d nvidia* mine 2>/dev/null | xargs; echo "$VENDOR"'

@test "device: one by its name of CDI is there with what belongs to it, on all nodes" {
	echo tool >"$cdi/tool"
	specification gpu.json nvidia.com/gpu "{\"env\": [\"VENDOR=yes\"], \"mounts\": [{\"hostPath\": \"$cdi/tool\", \"containerPath\": \"/opt/vendor/tool\", \"options\": [\"ro\"]}]}"
	run_ok crun -N2 "${in_image[@]}" --container-device=nvidia.com/gpu=2,nvidia.com/gpu=0 \
		sh -c "$shown; cat /opt/vendor/tool; echo x 2>&1 >/opt/vendor/tool; stat -c '%t %T %a' /dev/nvidia2"
	for line in 'nvidia0 nvidia2' yes tool '3c 2 666'; do
		[[ $(grep -cx "$line" <<<"$output") == 2 ]] || fail "$output"
	done
	[[ $(grep -c 'Read-only file system' <<<"$output") == 2 ]] || fail "$output"
	run_ok crun "${in_image[@]}" sh -c "$shown"
	[[ -z ${output//$'\n'/} ]] || fail "$output"
	expect_no_leftovers
}

@test "device: a path shows the host's file, where the user says" {
	run_ok crun "${in_image[@]}" --container-device=/dev/loop-control,/dev/zero:/dev/mine:rw,/dev/null:/opt/null \
		sh -c 'ls /dev/loop-control; head -c2 /dev/mine | od -An -tx1; echo x >/opt/null && echo written'
	[[ $output == $'/dev/loop-control\n 00 00\nwritten' ]] || fail "$output"
	run_fails crun "${in_image[@]}" --container-device=/dev/no-such,/dev/none true
	expect_one_error "mount /dev/no-such: no such file or directory on this node; mount /dev/none: no such file or directory on this node"
}

@test "device: a specification in YAML counts, and of one name the later directory's" {
	specification gpu.json nvidia.com/gpu '{"env": ["VENDOR=early"]}'
	mkdir "$cdi/late"
	cat >"$cdi/late/gpu.yaml" <<-YAML
		cdiVersion: "0.5.0"
		kind: nvidia.com/gpu
		devices:
		- name: "1"
		  containerEdits:
		    env: [VENDOR=late]
		    deviceNodes:
		    - {path: /dev/mine, hostPath: $cards/card1}
	YAML
	run_ok crun "${in_image[@]}" --container-device=nvidia.com/gpu=1 sh -c "$shown"
	[[ $output == $'mine\nlate' ]] || fail "$output"
	run_ok crun "${in_image[@]}" --container-device=nvidia.com/gpu=1,nvidia.com/gpu=3 sh -c "$shown"
	[[ $output == $'mine nvidia3\nearly' ]] || fail "$output"
}

@test "device: variable, environment definition file and command line" {
	specification gpu.json nvidia.com/gpu
	given BROLGA_CONTAINER_DEVICE=nvidia.com/gpu=1
	run_ok as_user env "${with_env[@]}" srun "${in_image[@]}" sh -c "$shown"
	expect_line nvidia1
	cat >"$user_home/device.toml" <<-TOML
		image = "$BROLGA_TEST_IMAGE"
		devices = ["nvidia.com/gpu=2", "/dev/zero:/dev/mine:r"]
	TOML
	run_ok as_user env "${with_env[@]}" srun --environment=./device.toml --container-device=nvidia.com/gpu=3 sh -c "$shown"
	expect_line 'mine nvidia2 nvidia3'
	rm "$user_home/device.toml"
}

@test "device: mistakes are told before anything is submitted" {
	refused '--container-device: "gpu=0": want VENDOR/CLASS=NAME, a path below /dev, or none; --container-device: "/etc/passwd": want a path below /dev' \
		"${in_image[@]}" --container-device=gpu=0,/etc/passwd
	refused '--container-device: destination /proc/x is taken: choose another' "${in_image[@]}" --container-device=/dev/null:/proc/x
	given BROLGA_CONTAINER_DEVICE=
	refused 'BROLGA_CONTAINER_DEVICE is empty: unset it or give it a value' "${in_image[@]}"
}

@test "device: what the node does not have is named, with what it has, and no node is drained" {
	specification gpu.json nvidia.com/gpu
	run_fails crun -N2 -n4 "${in_image[@]}" --container-device=nvidia.com/gpu=7,amd.com/gpu=0,nvidia.com/gpu=1 true
	expect_line 'brolga: error: hook device: this node has no CDI device nvidia.com/gpu=7; this node has no CDI device amd.com/gpu=0'
	expect_line 'brolga: hint: of nvidia.com/gpu it has 0, 1, 2, 3, all'
	[[ $(grep -c 'brolga: error' <<<"$output") == 2 ]] || fail "$output"
	nodes_idle
}

@test "device: a specification that is wrong is named where it is needed, and ignored elsewhere" {
	specification gpu.json nvidia.com/gpu
	echo '{"cdiVersion": "0.6.0", "kind": "a.b/c", "colour": "red"}' >"$cdi/broken.json"
	run_fails crun "${in_image[@]}" --container-device=a.b/c=0 true
	expect_match "brolga: error: hook device: this node has no CDI device a.b/c=0; ignored: $cdi/broken.json: .*field colour not found"
	expect_match "brolga: hint: CDI specifications are the site's: tell its administrator"
	run_ok crun "${in_image[@]}" --container-device=nvidia.com/gpu=0 --container-verbose sh -c "$shown"
	expect_match "brolga: CDI: ignored: $cdi/broken.json: "
	specification again.json nvidia.com/gpu
	run_fails crun "${in_image[@]}" --container-device=nvidia.com/gpu=0 true
	expect_one_error "hook device: CDI device nvidia.com/gpu=0 is in both $cdi/again.json and $cdi/gpu.json"
	rm "$cdi/again.json"
	specification gpu.json nvidia.com/gpu '{"mounts": [{"hostPath": "/no/such/libcuda.so.1", "containerPath": "/usr/lib/libcuda.so.1"}]}'
	run_fails crun "${in_image[@]}" --container-device=nvidia.com/gpu=0 true
	expect_one_error "hook device: CDI specification $cdi/gpu.json: mount of /no/such/libcuda.so.1: no such file or directory"
	expect_match 'brolga: hint: it does not fit the node, perhaps since its driver is another'
	nodes_idle
	expect_no_leftovers
}

@test "device: a hook of a specification runs as the site's hooks do, or is refused by name" {
	cat >"$cdi/hook" <<-'HOOK'
		#!/bin/bash
		[[ $1 != fail ]] || { echo no device >&2; exit 3; }
		root=$(jq -r .root.path config.json)
		mount -t tmpfs vendor "$root/mnt" && echo "$1 $A" >"$root/mnt/stamp"
	HOOK
	chmod 0755 "$cdi/hook"
	hooked() {
		specification gpu.json nvidia.com/gpu "{\"hooks\": [{\"hookName\": \"$1\", \"path\": \"$cdi/hook\", \"args\": [\"hook\", \"$2\"], \"env\": [\"A=1\", \"PATH=$PATH\"]}]}"
	}
	hooked createContainer ran
	run_ok crun "${in_image[@]}" --container-device=nvidia.com/gpu=0,nvidia.com/gpu=1 cat /mnt/stamp
	expect_line 'ran 1'
	hooked createContainer fail
	run_fails crun "${in_image[@]}" --container-device=nvidia.com/gpu=0 true
	expect_one_error "start container: hook $cdi/gpu.json: createContainer: hook: no device (exit status 3)"
	hooked startContainer ran
	run_fails crun "${in_image[@]}" --container-device=nvidia.com/gpu=0 true
	expect_one_error "hook $cdi/hook of $cdi/gpu.json: stage startContainer does not exist here: it would run a program of the image as root; use createContainer"
	hooked createContainer ran
	chmod 0777 "$cdi/hook"
	run_fails crun "${in_image[@]}" --container-device=nvidia.com/gpu=0 true
	expect_one_error "start container: hook $cdi/gpu.json: createContainer: $cdi/hook (owner 0, mode 0777): someone other than root could change it"
	nodes_idle
	expect_no_leftovers
}

@test "device: NVIDIA's own hooks take effect without being run" {
	local libs=/usr/lib/x86_64-linux-gnu
	mkdir "$cdi/lib"
	gcc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$cdi/lib/libcuda.so.550.54" -x c - <<<'int cuInit(unsigned x) { return (int)x; }'
	specification gpu.json nvidia.com/gpu "$(jq -n --arg lib "$cdi/lib/libcuda.so.550.54" '
		def nvidia: {hookName: "createContainer", path: "/no/such/nvidia-cdi-hook", args: (["nvidia-cdi-hook"] + .)};
		{mounts: [{hostPath: $lib, containerPath: "/opt/driver/libcuda.so.550.54", options: ["ro", "rbind", "rprivate"]}],
		 hooks: ([["create-symlinks", "--link", "libcuda.so.1::/opt/driver/libcuda.so", "--link", "../nvidia0::/dev/by-path/card"],
			["update-ldcache", "--folder", "/opt/driver"], ["chmod", "--mode", "755", "--path", "/dev/dri"],
			["enable-cuda-compat", "--host-driver-version=550.54"], ["of-tomorrow"]] | map(nvidia))}')"
	run_ok crun "${in_image[@]}" --container-readonly --container-device=nvidia.com/gpu=0 sh -c "
		readlink /opt/driver/libcuda.so /dev/by-path/card
		LD_PRELOAD=libcuda.so.1 grep -o '/opt/driver/libcuda.*' /proc/self/maps | sort -u
		readlink $libs/libcuda.so.1"
	[[ $output == $'libcuda.so.1\n../nvidia0\n/opt/driver/libcuda.so.550.54\n/opt/driver/libcuda.so.550.54' ]] || fail "$output"
	expect_no_leftovers
}

@test "device: a dry run tells what was understood" {
	specification gpu.json nvidia.com/gpu
	run_ok crun "${in_image[@]}" --container-dry-run --container-device=nvidia.com/gpu=1,/dev/zero:/dev/mine true
	[[ $(jq -c '.request.Accelerators.Names' <<<"$output") == '["nvidia.com/gpu=1"]' ]] || fail "$output"
	[[ $(jq -r '.spec.mounts[] | select(.destination == "/dev/mine").source' <<<"$output") == /dev/zero ]] || fail "$output"
	run_ok as_user brolga hooks
	expect_match '^device +inspect +--container-device, or GPUs of Slurm.s +shows devices'
}
