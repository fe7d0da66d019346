#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-platform

load ../lib/helpers
load ../lib/images

setup() {
	set_up_image "option-platform:$BATS_TEST_NUMBER"
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
	foreign=$(mkimage --arch arm64 --env PATH=/bin option-platform/alien:1 "$image")
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
