#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-pull

load ../lib/helpers
load ../lib/images

setup() {
	name=option-pull:$BATS_TEST_NUMBER
	set_up_image "$name"
}

# The tag means another image from now on.
move_tag() {
	echo two >"$image/version"
	mkimage --env PATH=/bin "$name" "$image" >/dev/null
}

@test "pull: missing asks the registry only for what is not cached" {
	move_tag
	mark_logs
	run_ok crun "${in_image[@]}" --container-pull=missing cat /version
	[[ $output == one ]] || fail "$output"
	[[ $(registry_requests) == 0 ]] || fail "$(registry_requests) requests"
}

@test "pull: always finds out that a tag has moved, once for all nodes" {
	move_tag
	mark_logs
	run_ok crun -N2 "${in_image[@]}" --container-quiet --container-pull=always cat /version
	[[ $output == $'two\ntwo' ]] || fail "$output"
	[[ $(registry_requests GET manifests) == 1 ]] || fail "$(log_since_mark registry.log)"
	run_ok crun "${in_image[@]}" cat /version
	[[ $output == two ]] || fail "$output"
}

@test "pull: never refuses what is not cached and asks nobody" {
	run_ok crun "${in_image[@]}" --container-pull=never cat /version
	[[ $output == one ]] || fail "$output"
	as_user brolga rmi "$ref" >/dev/null
	mark_logs
	refused "$ref is not in your cache, and is not to be pulled" "${in_image[@]}" --container-pull=never
	[[ $(registry_requests) == 0 ]] || fail "$(registry_requests) requests"
}

@test "pull: the variable does the same, and mistakes are found before anything is submitted" {
	as_user brolga rmi "$ref" >/dev/null
	given BROLGA_CONTAINER_PULL=never
	refused "$ref is not in your cache, and is not to be pulled" "${in_image[@]}"
	given
	refused '--container-pull: "maybe" is not one of missing, always, never' "${in_image[@]}" --container-pull=maybe
	refused '--container-pull needs a value: missing|always|never' "${in_image[@]}" --container-pull=
}
