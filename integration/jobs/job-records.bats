#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# What Slurm knows of a job's image, for accounting and for the site's scripts.

load ../lib/helpers
load ../lib/images

in_image=(--container-image="$BROLGA_TEST_IMAGE")

setup_file() {
	cp "$SLURM_CONF" "$BATS_FILE_TMPDIR/slurm.conf"
	cp "$repo/slurm-config/job_submit.lua" "${SLURM_CONF%/*}/job_submit.lua"
	printf 'JobSubmitPlugins=lua\n' >>"$SLURM_CONF"
	scontrol reconfigure
	as_user brolga pull --quiet "$BROLGA_TEST_IMAGE" >/dev/null
	as_user brolga pull --quiet "$BROLGA_TEST_SMALL_IMAGE" >/dev/null
	digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$BROLGA_TEST_IMAGE")
	export digest
}

teardown_file() {
	put "$BATS_FILE_TMPDIR/slurm.conf" "$SLURM_CONF"
	rm -f "${SLURM_CONF%/*}/job_submit.lua"
	scontrol reconfigure
}

# recorded FIELD [JOB]: a field of the last job, or of another one.
recorded() { scontrol show job "${2:-$(last_job)}" | sed -n "s/^ *$1=\(.*[^ ]\) *\$/\1/p"; }

@test "records: scontrol shows the image of jobs of srun, sbatch and salloc, while they wait, too" {
	crun "${in_image[@]}" true
	[[ $(recorded AdminComment) == "image=$BROLGA_TEST_IMAGE@$digest" ]] || fail "$(recorded AdminComment)"
	run_ok as_user sbatch --parsable --hold "${in_image[@]}" --output=/dev/null --wrap true
	[[ $(recorded AdminComment "$output") == "image=$BROLGA_TEST_IMAGE@$digest" ]]
	scancel "$output"
	printf '#!/bin/sh\n#SBATCH --container-image=%s\n' "$BROLGA_TEST_IMAGE" | as_user tee job.sh >/dev/null
	run_ok as_user sbatch --parsable --hold --export=NONE --output=/dev/null job.sh
	[[ $(recorded AdminComment "$output") == "image=$BROLGA_TEST_IMAGE@$digest" ]]
	scancel "$output"
	as_user salloc --quiet "${in_image[@]}" true
	[[ $(recorded AdminComment) == "image=$BROLGA_TEST_IMAGE@$digest" ]]
	as_user env "BROLGA_CONTAINER_IMAGE=$BROLGA_TEST_IMAGE" srun true
	[[ $(recorded AdminComment) == "image=$BROLGA_TEST_IMAGE@$digest" ]]
}

@test "records: a user's comment is kept, and jobs without a container have no image" {
	run_ok as_user sbatch --parsable --hold --comment='my words' "${in_image[@]}" --output=/dev/null --wrap true
	[[ $(recorded Comment "$output") == 'my words' ]]
	[[ $(recorded AdminComment "$output") == "image=$BROLGA_TEST_IMAGE@$digest" ]]
	scancel "$output"
	crun true
	[[ -z $(recorded AdminComment) ]]
}

@test "records: a job that a job with an image submits has its own, or none" {
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/sh
		# What would have them take over the allocation and its options.
		unset SLURM_JOB_ID _SLURM_SPANK_OPTION_brolga_container_image SLURM_SPANK__SLURM_SPANK_OPTION_brolga_container_image
		srun --job-name=inner true
		srun --job-name=inner --container-image=$BROLGA_TEST_SMALL_IMAGE /hello >/dev/null
		sbatch --parsable --hold --job-name=inner --output=/dev/null --wrap true
	SCRIPT
	# The command of salloc runs on the host.
	run_ok as_user salloc --quiet "${in_image[@]}" sh job.sh
	local job
	for job in "$output" $((output - 2)); do
		[[ $(scontrol show job "$job") == *JobName=inner* ]] || fail "$(squeue --states=all)"
		[[ -z $(recorded AdminComment "$job") ]] || fail "$(recorded AdminComment "$job")"
	done
	[[ $(recorded AdminComment $((output - 1))) == "image=$BROLGA_TEST_SMALL_IMAGE@"* ]]
	scancel "$output"
}

@test "records: each part of a heterogeneous job has its own" {
	run_ok as_user sbatch --parsable --hold -N1 "${in_image[@]}" --output=/dev/null : -N1 --container-image="$BROLGA_TEST_SMALL_IMAGE" --wrap true
	local job=$output
	run scontrol show job "$job"
	scancel "$job"
	[[ $(grep -oP 'HetJobOffset=\K.|AdminComment=image=\K[^@]*' <<<"$output") == "0"$'\n'"$BROLGA_TEST_IMAGE"$'\n'"1"$'\n'"$BROLGA_TEST_SMALL_IMAGE" ]] || fail "$output"
}

@test "records: the job's prologs and epilogs know the image" {
	local script=$BATS_FILE_TMPDIR/prolog out=$BROLGA_CLUSTER_DIR/log/prolog.out
	chmod 0755 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR"
	printf '#!/bin/sh\nenv | grep ^SPANK_BROLGA >>%s\nexit 0\n' "$out" >"$script"
	chmod 0755 "$script"
	cp "$SLURM_CONF" "$BATS_TEST_TMPDIR/slurm.conf"
	printf 'Prolog=%s\nEpilog=%s\n' "$script" "$script" >>"$SLURM_CONF"
	scontrol reconfigure
	run crun "${in_image[@]}" true
	nodes_idle
	put "$BATS_TEST_TMPDIR/slurm.conf" "$SLURM_CONF"
	scontrol reconfigure
	((status == 0)) || fail "$output"
	run cat "$out"
	rm "$out"
	(($(grep -cxF "SPANK_BROLGA_JOB_IMAGE=$BROLGA_TEST_IMAGE@$digest" <<<"$output") == 2)) || fail "$output"
}
