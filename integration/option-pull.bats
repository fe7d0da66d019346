#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-pull, --container-platform, --container-verbose, --container-quiet
# and --container-dry-run

load helpers
load images

setup() {
	mark_logs
	new_image
	name=option-pull:$BATS_TEST_NUMBER
	echo one >"$image/version"
	push_image "$name"
	in_image=(--container-image="$ref")
	given
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

@test "platform: the image is chosen for it, and must be there" {
	run_ok crun "${in_image[@]}" --container-platform="linux/$(dpkg --print-architecture)" cat /version
	[[ $output == one ]] || fail "$output"
	refused '--container-platform: platform "a/b/c/d": want [OS/]ARCHITECTURE[/VARIANT], such as linux/arm64' "${in_image[@]}" --container-platform=a/b/c/d
	as_user brolga rmi "$ref" >/dev/null
	run_fails crun "${in_image[@]}" --container-platform=linux/s390x true
	expect_match 'brolga: error: pull .*s390x'
}

@test "platform: an image of another one, in a registry or an archive, runs only if it is asked for" {
	local alien=$BATS_TEST_TMPDIR/alien.tar foreign
	new_image
	foreign=$(mkimage --arch arm64 --env PATH=/bin option-pull/alien:1 "$image")
	as_user brolga rmi "$foreign" >/dev/null 2>&1 || true # of an earlier run
	refused "pull $foreign: no image for this platform, linux/amd64; there is linux/arm64" --container-image="$foreign"
	mkimage --arch arm64 --env PATH=/bin --to "oci-archive:$alien:x" alien:1 "$image" >/dev/null
	install -m 0644 -o "$BROLGA_TEST_USER" "$alien" "$user_home/alien.tar"
	refused "load oci-archive:$user_home/alien.tar: no image for this platform, linux/amd64; there is linux/arm64" \
		--container-image="oci-archive:$user_home/alien.tar"
	# The programs in it are of this machine.
	run_ok crun --container-image="$foreign" --container-platform=arm64 sh -c 'echo ran'
	expect_line ran
	# It is in the cache now, and in the store.
	refused "image $foreign: no image for this platform, linux/amd64; there is linux/arm64" --container-image="$foreign"
	rm -f "$user_home/alien.tar"
}

@test "verbose: the image and the times are said, quiet leaves warnings out" {
	run_ok crun "${in_image[@]}" --container-verbose cat /version
	expect_match "^brolga: the step runs $ref@sha256:"
	expect_match 'brolga: container ready in '
	push_image --workdir /version option-pull:w
	run_ok crun --container-image="$ref" --chdir=/ sh -c 'exit 0'
	expect_match 'brolga: warning: '
	run_ok crun --container-image="$ref" --chdir=/ --container-quiet sh -c 'exit 0'
	[[ -z $output ]] || fail "$output"
	refused '--container-quiet contradicts --container-verbose: give one of them' "${in_image[@]}" --container-verbose --container-quiet
}

@test "dry-run: request and specification are printed, and nothing is submitted" {
	before=$(last_job)
	for command in 'srun sh' 'sbatch --wrap=sh' salloc; do
		read -ra words <<<"$command"
		run_ok as_user "${words[0]}" "${in_image[@]}" --container-dry-run --container-readonly --container-mounts=/etc:/mnt --container-annotation=a.b=c "${words[@]:1}"
		jq -e '.request.UID == '"$(id -u "$BROLGA_TEST_USER")"' and .spec.root.readonly and .spec.annotations["a.b"] == "c"
			and any(.spec.mounts[]; .destination == "/mnt" and .source == "/etc") and (.spec.process.env | index("PATH=/bin"))' <<<"$output" >/dev/null || fail "$output"
	done
	[[ $(last_job) == "$before" ]] || fail "a job was submitted"
	refused '--container-mounts: "x": source "x" does not start with / or .' "${in_image[@]}" --container-dry-run --container-mounts=x
}
