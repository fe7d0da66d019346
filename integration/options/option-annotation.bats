#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-annotation

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	given
}

@test "annotation: malformed ones are refused before anything is submitted" {
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" --container-annotation='com.example.a=b\,c,d' true
	refused '--container-annotation: "=b": want KEY=VALUE' --container-image="$BROLGA_TEST_IMAGE" --container-annotation=a=b,=b
	refused '--container-annotation needs a value: KEY=VALUE[,...]' --container-image="$BROLGA_TEST_IMAGE" --container-annotation=
}
