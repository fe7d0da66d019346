#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-verbose and --container-quiet

load ../lib/helpers
load ../lib/images

setup() {
	set_up_image "option-verbose:$BATS_TEST_NUMBER"
}

@test "verbose: the image and the times are said, quiet leaves warnings out" {
	run_ok crun "${in_image[@]}" --container-verbose cat /version
	expect_match "^brolga: the step runs $ref@sha256:"
	expect_match 'brolga: container ready in '
	push_image --workdir /version option-verbose:w
	run_ok crun --container-image="$ref" --chdir=/ sh -c 'exit 0'
	expect_match 'brolga: warning: '
	run_ok crun --container-image="$ref" --chdir=/ --container-quiet sh -c 'exit 0'
	[[ -z $output ]] || fail "$output"
	refused '--container-quiet contradicts --container-verbose: give one of them' "${in_image[@]}" --container-verbose --container-quiet
}
