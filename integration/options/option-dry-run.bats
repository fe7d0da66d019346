#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-dry-run

load ../lib/helpers
load ../lib/images

setup() {
	set_up_image "option-dry-run:$BATS_TEST_NUMBER"
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
