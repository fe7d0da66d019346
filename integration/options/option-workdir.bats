#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-workdir, and where tasks start without it.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
}

starts_in() {
	local want=$1
	shift
	run_ok crun "${in_image[@]}" "$@" sh -c '/bin/pwd; echo $PWD'
	[[ $output == "$want"$'\n'"$want" ]] || fail "$* starts in $output, not $want"
}

@test "workdir: tasks start where the option says, in any way of writing it" {
	starts_in /opt/work --container-workdir=/opt/work
	starts_in /usr/share --container-workdir=/usr//lib/../share/.
	starts_in / --container-workdir=/
	starts_in /etc --container-workdir=/tmp --container-workdir=/etc
}

@test "workdir: a directory that was mounted will do" {
	as_user mkdir -p mounts/x
	starts_in /mnt/new --container-mounts="$user_home/mounts/x:/mnt/new" --container-workdir=/mnt/new
	starts_in "$user_home/mounts" --no-container-mount-home --container-mounts="$user_home/mounts" --container-workdir="$user_home/mounts"
	rm -rf "$user_home/mounts"
}

@test "workdir: without the option it is the step's, if the container has that same directory" {
	starts_in "$user_home"
	as_user mkdir -p mounts
	starts_in "$user_home/mounts" --chdir="$user_home/mounts"
	starts_in "$user_home/mounts" --chdir="$user_home/mounts" --no-container-mount-home --container-mounts="$user_home/mounts"
	rm -rf "$user_home/mounts"
}

@test "workdir: otherwise it is the image's, not one that only has the same name" {
	starts_in /opt/work --chdir=/tmp
	starts_in /opt/work --chdir=/etc
	starts_in /opt/work --no-container-mount-home
	starts_in /tmp --chdir=/tmp --container-mounts=/tmp
}

@test "workdir: an image without one has /, one that is missing is made" {
	new_image
	push_image workdir-none:1
	run_ok crun --container-image="$ref" --chdir=/var/tmp pwd
	[[ $output == / ]]
	push_image --workdir /srv/made workdir-missing:1
	run_ok crun --container-image="$ref" --chdir=/var/tmp pwd
	[[ $output == /srv/made ]]
}

@test "workdir: an image's that cannot be entered is warned of" {
	new_image
	mkdir -m 0700 "$image/closed"
	push_image --workdir /closed workdir-closed:1
	run_ok crun --container-image="$ref" --chdir=/var/tmp -n2 pwd
	[[ $(grep -cx / <<<"$output") == 2 ]] || fail "$output"
	[[ $(grep -c "brolga: warning: cannot enter the image's working directory /closed (permission denied); starting in /" <<<"$output") == 1 ]] || fail "$output"
}

@test "workdir: the site can prefer the image's" {
	site_config $'[container]\nworkdir = "image"'
	starts_in /opt/work
	starts_in /etc --container-workdir=/etc
}

@test "workdir: the variable does the same, and the option wins" {
	run_ok as_user env BROLGA_CONTAINER_WORKDIR=/usr srun "${in_image[@]}" pwd
	[[ $output == /usr ]]
	run_ok as_user env BROLGA_CONTAINER_WORKDIR=/usr srun "${in_image[@]}" --container-workdir=/etc pwd
	[[ $output == /etc ]]
}

@test "workdir: a directory that is missing or closed ends the step with one error" {
	for want in '/no/such: no such directory in the container' '/root: permission denied' \
		'/root/x: permission denied' '/etc/passwd: not a directory'; do
		run_fails crun "${in_image[@]}" --container-workdir="${want%%:*}" -n2 true
		expect_one_error "enter working directory $want"
		expect_line 'brolga: hint: --container-workdir names a directory in the container'
	done
	nodes_idle
}

@test "workdir: a relative or empty one is refused before anything is submitted" {
	refused '--container-workdir: "opt/work" is not an absolute path' "${in_image[@]}" --container-workdir=opt/work
	refused '--container-workdir: "." is not an absolute path' "${in_image[@]}" --container-workdir=.
	refused '--container-workdir needs a value: PATH' "${in_image[@]}" --container-workdir=
	given BROLGA_CONTAINER_WORKDIR=opt
	refused '--container-workdir: "opt" is not an absolute path' "${in_image[@]}"
}
