#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --export says which variables a step gets. It must not decide whether the step
# runs in its container.

load ../lib/helpers
load ../lib/images

in_image=(--container-image="$BROLGA_TEST_IMAGE")
show='echo "<$BROLGA_IMAGE> $PWD <$OF_THE_USER> <$(env | grep -c "^SLURM_BROLGA")>"'

# job ARGUMENT...: the output of a batch job.
job() {
	run_ok batch --output=job.out "$@"
	run_ok as_user cat job.out
}

@test "export: a batch job keeps its container options, whatever is exported" {
	for export in ALL NONE NIL OF_THE_USER; do
		given OF_THE_USER=here
		job --export="$export" "${in_image[@]}" --container-workdir=/usr --wrap "$show"
		case $export in
		ALL | OF_THE_USER) expect_line '<debian> /usr <here> <0>' ;;
		*) expect_line '<debian> /usr <> <0>' ;;
		esac
	done
}

@test "export: lines of the script count as options do" {
	printf '#!/bin/sh\n#SBATCH --export=NONE\n#SBATCH --container-image=%s\n%s\n' "$BROLGA_TEST_IMAGE" "$show" |
		as_user tee job.sh >/dev/null
	job --chdir=/ job.sh
	expect_match '^<debian> '
}

@test "export: a batch job keeps what variables said of its container" {
	for export in ALL NONE OF_THE_USER; do
		given "BROLGA_CONTAINER_IMAGE=$BROLGA_TEST_IMAGE" BROLGA_CONTAINER_WORKDIR=/usr OF_THE_USER=here
		job --export="$export" --wrap "$show"
		expect_match '^<debian> /usr '
	done
}

@test "export: steps keep both" {
	for export in ALL NONE OF_THE_USER; do
		run_ok as_user env "BROLGA_CONTAINER_IMAGE=$BROLGA_TEST_IMAGE" BROLGA_CONTAINER_WORKDIR=/usr \
			srun -N2 --export="$export" sh -c "$show"
		(($(grep -c '^<debian> /usr ' <<<"$output") == 2)) || fail "$output"
		run_ok as_user env BROLGA_CONTAINER_WORKDIR=/usr srun --export="$export" "${in_image[@]}" sh -c "$show"
		expect_match '^<debian> /usr '
	done
}

@test "export: steps of a batch job on the host run in what the variable said" {
	given "BROLGA_CONTAINER_IMAGE=$BROLGA_TEST_IMAGE" OF_THE_USER=here
	printf '#!/bin/sh\nsrun sh -c %q\nunset BROLGA_CONTAINER_IMAGE\nsrun sh -c %q\n' "$show" "$show" |
		as_user tee job.sh >/dev/null
	# salloc runs its command on the host.
	run_ok as_user env "${with_env[@]}" salloc --quiet sh job.sh
	((${#lines[@]} == 2)) || fail "$output"
	[[ ${lines[0]} == '<debian> '* && ${lines[1]} == '<> '* ]] || fail "$output"
}

@test "export: what was pinned at submission holds with NONE, too" {
	new_image
	echo one >"$image/stamp"
	push_image exported/moving:1
	run_ok as_user sbatch --parsable --hold --export=NONE --container-image="$ref" --output=job.out --wrap 'cat /stamp'
	local job=$output
	echo two >"$image/stamp"
	push_image exported/moving:1
	scontrol release "$job"
	retry 60 job_ended "$job"
	run_ok as_user cat job.out
	[[ $output == one ]] || fail "$output"
}

@test "export: an impossible image fails the job and runs nothing on the host" {
	new_image
	push_image exported/gone:1
	run_ok as_user sbatch --parsable --hold --export=NONE --container-image="$ref" --output=job.out --wrap 'echo on the host'
	local job=$output
	as_user brolga rmi "$ref" >/dev/null
	curl -s -X DELETE "http://${ref%%/*}/v2/exported/gone/manifests/$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$ref")"
	scontrol release "$job"
	retry 60 job_ended "$job"
	run_ok as_user cat job.out
	expect_match 'brolga: error: '
	refute_match 'on the host'
	nodes_idle
}
