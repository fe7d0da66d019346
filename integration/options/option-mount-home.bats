#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-mount-home and --no-container-mount-home

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
	echo "from the host" | as_user tee home-marker >/dev/null
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	rm -f "$user_home"/home-marker "$user_home"/home-made
}

home_is_there() {
	run_ok as_user env "${with_env[@]}" srun "${in_image[@]}" "$@" cat "$user_home/home-marker"
	[[ $output == "from the host" ]]
}

home_is_not_there() {
	run_ok as_user env "${with_env[@]}" srun "${in_image[@]}" "$@" sh -c "echo \$HOME; ls -A $user_home 2>&1; grep -c ' $user_home ' /proc/self/mountinfo; true"
	expect_line "$user_home"
	refute_match 'home-marker'
	expect_line 0
}

@test "home: it is mounted at its path and can be written to" {
	home_is_there --container-mount-home
	run_ok crun "${in_image[@]}" --container-mount-home sh -c 'touch ~/home-made; df --output=target ~ | tail -n1'
	[[ $output == "$user_home" ]]
	[[ $(stat -c %U "$user_home/home-made") == "$BROLGA_TEST_USER" ]]
	# As anything that is mounted, it is the user's own view: no other's home.
	run_ok crun "${in_image[@]}" --container-mount-home ls /home
	[[ $output == "${user_home##*/}" ]] || fail "$output"
}

@test "home: it is not mounted against the user's wish" {
	home_is_not_there --no-container-mount-home
}

@test "home: an image without /home gets it too, a read-only one as well" {
	run_ok crun --container-image="$BROLGA_TEST_SMALL_IMAGE" --container-mount-home --container-readonly --chdir="$user_home" /hello
	expect_line "cwd: $user_home"
}

@test "home: flag, variable and site configuration, in this order" {
	home_is_there
	site_config $'[container]\nmount_home = false'
	home_is_not_there
	home_is_there --container-mount-home
	given BROLGA_CONTAINER_MOUNT_HOME=1
	home_is_there
	home_is_not_there --no-container-mount-home
	given BROLGA_CONTAINER_MOUNT_HOME=no
	restore_site_config
	home_is_not_there
	home_is_there --container-mount-home
}

@test "home: contradictions and wrong values are refused before anything is submitted" {
	refused '--no-container-mount-home contradicts --container-mount-home: give one of them' "${in_image[@]}" --container-mount-home --no-container-mount-home
	given BROLGA_CONTAINER_MOUNT_HOME=2
	refused 'BROLGA_CONTAINER_MOUNT_HOME=2: want 1 or 0' "${in_image[@]}"
	given BROLGA_CONTAINER_MOUNT_HOME=
	refused 'BROLGA_CONTAINER_MOUNT_HOME=: want 1 or 0' "${in_image[@]}"
}

@test "mount-home: a preference in the environment leaves steps without a container alone" {
	run_ok as_user env BROLGA_CONTAINER_MOUNT_HOME=0 srun echo on the host
	[[ $output == 'on the host' ]] || fail "$output"
}
