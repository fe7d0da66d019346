#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# What users and images cannot get by devices.

load ../lib/helpers
load ../lib/images
load ../lib/gpu

setup() { gpu_setup; }
teardown() { gpu_teardown; }

# What a user must not get: a device of root's and a file in a directory of root's.
wish() {
	jq -n '{cdiVersion: "0.6.0", kind: "my.own/device", devices: [{name: "0", containerEdits: {
		deviceNodes: [{path: "/dev/mem", hostPath: "/dev/kmsg"}], mounts: [{hostPath: "/root", containerPath: "/mnt"}]}}]}'
}

@test "devices: a specification that a user has written is not read, wherever it is" {
	wish | as_user tee "$user_home/mine.json" >/dev/null
	run_fails as_user env CDI_SPEC_DIRS="$user_home" XDG_CONFIG_HOME="$user_home" srun "${in_image[@]}" --container-device=my.own/device=0 true
	expect_one_error "hook device: this node has no CDI device my.own/device=0"
	for change in "cp --no-preserve=mode" "ln -s" "ln"; do
		$change "$user_home/mine.json" "$cdi/mine.json"
		[[ $change != cp* ]] || chown "$BROLGA_TEST_USER:" "$cdi/mine.json"
		run_fails crun "${in_image[@]}" --container-device=my.own/device=0 true
		expect_match "brolga: error: hook device: this node has no CDI device my.own/device=0; ignored: .* someone other than root could change it"
		rm "$cdi/mine.json"
	done
	wish >"$cdi/mine.json"
	chmod 0777 "$cdi"
	run_fails crun "${in_image[@]}" --container-device=my.own/device=0 true
	expect_match "ignored: $cdi \(owner 0, mode 0777\): someone other than root could change it"
	rm "$user_home/mine.json"
}

@test "devices: labels and variables of an image bring none" {
	specification gpu.json nvidia.com/gpu
	new_image
	push_image --env NVIDIA_VISIBLE_DEVICES=all --env BROLGA_CONTAINER_DEVICE=nvidia.com/gpu=all --env SLURM_STEP_GPUS=0,1,2,3 \
		--label cdi.k8s.io/x=nvidia.com/gpu=all --label com.brolga.device=nvidia.com/gpu=all devices-hostile
	run_ok crun --container-image="$ref" sh -c 'ls /dev | grep nvidia || echo none'
	[[ $output == none ]] || fail "$output"
	run_ok crun --gres=gpu:1 --container-image="$ref" sh -c 'ls /dev | grep nvidia; echo $SLURM_STEP_GPUS'
	[[ $output == $'nvidia0\n0' ]] || fail "$output"
}

@test "devices: names with tricks are refused where the step is submitted" {
	for name in '../../etc/cdi=0' 'a/b=../../c' 'a/b=$(id)' 'a/b=c;d' '=' '/dev/../etc/shadow' '/devil' 'a/b=c/../d' '-a/b=c' "a/b=c d"; do
		refused "--container-device: \"$name\": want $([[ $name == /* ]] && echo a path below /dev || echo VENDOR/CLASS=NAME, a path below /dev, or none)" \
			"${in_image[@]}" "--container-device=$name"
	done
}

@test "devices: one that the host closes to the user stays closed" {
	mkdir -m 0700 "$cdi/closed"
	mknod -m 0666 "$cdi/closed/card" c 1 5
	mknod -m 0600 "$cdi/card" c 1 5
	echo secret >"$cdi/closed/file"
	jq -n --arg cdi "$cdi" '{cdiVersion: "0.6.0", kind: "a.b/c", devices: [
		{name: "file", containerEdits: {mounts: [{hostPath: "\($cdi)/closed/file", containerPath: "/mnt/file"}]}},
		{name: "directory", containerEdits: {deviceNodes: [{path: "/dev/mine", hostPath: "\($cdi)/closed/card"}]}},
		{name: "mode", containerEdits: {deviceNodes: [{path: "/dev/mine", hostPath: "\($cdi)/card"}]}}]}' >"$cdi/a.json"
	run_fails crun "${in_image[@]}" --container-device=a.b/c=directory,a.b/c=file true
	expect_match "mount $cdi/closed/card: user $BROLGA_TEST_USER may not reach it: permission denied; mount $cdi/closed/file: user"
	run_ok crun "${in_image[@]}" --container-device=a.b/c=mode sh -c 'head -c1 /dev/mine 2>&1; ls -l /dev/mine'
	expect_match 'Permission denied'
	run_ok crun "${in_image[@]}" --container-remap-root --container-device=a.b/c=mode sh -c 'head -c1 /dev/mine 2>&1; mknod /dev/other c 1 5 2>&1; head -c1 /dev/other 2>&1 || :'
	expect_match 'Permission denied'
	expect_no_leftovers
}

@test "devices: links of a specification stay inside the container, and off the host's directories" {
	as_user mkdir -p "$user_home/mine"
	specification gpu.json nvidia.com/gpu "$(jq -n --arg home "$user_home" '{hooks: [{hookName: "createContainer", path: "/x/nvidia-cdi-hook",
		args: ["nvidia-cdi-hook", "create-symlinks", "--link", "x::/escape/link", "--link", "x::\($home)/mine/link", "--link", "x::/../../../../tmp/link"]}]}')"
	new_image
	ln -s "$BROLGA_CLUSTER_DIR/cdi" "$image/escape"
	push_image devices-escape
	run_ok crun --container-image="$ref" --container-device=nvidia.com/gpu=0 sh -c 'ls -l /tmp/link'
	expect_match "brolga: warning: make link $user_home/mine/link: the directory is the host's"
	[[ ! -L $cdi/link && ! -L $user_home/mine/link && ! -L /tmp/link ]] || fail "a link is on the host"
	rm -r "$user_home/mine"
}
