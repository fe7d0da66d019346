#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-image: how images are named, and which one it is.

load ../lib/helpers
load ../lib/images

# Two images that say which they are.
setup() {
	mark_logs
	local n
	new_image
	for n in 1 2; do
		echo "image $n" >"$image/stamp"
		push_image "named/stamp:$n"
	done
	named=$BROLGA_TEST_REGISTRY/named/stamp
	given
}

stamp() {
	run_ok as_user env "${with_env[@]}" srun "$@" cat /stamp
	printf '%s\n' "${lines[-1]}"
}

digest_of() { skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$1"; }

@test "image: all ways to write a name mean the same" {
	local name digest
	digest=$(digest_of "$named:1")
	for name in "$named:1" "docker://$named:1" "$BROLGA_TEST_REGISTRY#named/stamp:1" \
		"docker://$BROLGA_TEST_REGISTRY#named/stamp:1" "$named@$digest" "$named:1@$digest" "docker://$named@$digest"; do
		[[ $(stamp --container-image="$name") == "image 1" ]] || fail "$name"
	done
}

@test "image: without a tag it is the one called latest" {
	echo latest >"$image/stamp"
	push_image named/stamp:latest
	[[ $(stamp --container-image="$named") == latest ]]
	[[ $(stamp --container-image="$named:latest") == latest ]]
}

@test "image: the digest decides, not the tag beside it" {
	[[ $(stamp --container-image="$named:1@$(digest_of "$named:2")") == "image 2" ]]
}

@test "image: the last of several counts, the variable is the first" {
	[[ $(stamp --container-image="$named:1" --container-image="$named:2") == "image 2" ]]
	given BROLGA_CONTAINER_IMAGE="$named:1"
	[[ $(stamp) == "image 1" ]]
	[[ $(stamp --container-image="$named:2") == "image 2" ]]
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/sh
		#SBATCH --container-image=$named:1 --output=job.out
		cat /stamp
	SCRIPT
	run_ok batch job.sh
	[[ $(as_user cat job.out) == "image 1" ]]
	run_ok batch --container-image="$named:2" job.sh
	[[ $(as_user cat job.out) == "image 2" ]]
}

@test "image: a variable in a plain batch job asks for its steps" {
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/sh
		#SBATCH --output=job.out
		ls -d /stamp
		export BROLGA_CONTAINER_IMAGE=$named:2
		srun cat /stamp
	SCRIPT
	run_ok batch job.sh
	run_ok as_user cat job.out
	expect_line "image 2"
	expect_match "cannot access '/stamp'"
}

@test "image: a job runs what its tag meant when it was submitted" {
	local job
	echo before >"$image/stamp"
	push_image named/moving:1
	run_ok as_user sbatch --parsable --hold --output=job.out --container-image="$ref" --wrap 'cat /stamp'
	job=$output
	echo after >"$image/stamp"
	push_image named/moving:1
	[[ $(stamp --container-image="$ref") == after ]]
	scontrol release "$job"
	retry 20 job_ended "$job"
	[[ $(as_user cat job.out) == before ]]
}

@test "image: a digest that no registry has is an error, not the tag's image" {
	local digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
	refused "pull $named:1@$digest: the registry has no such image or tag" --container-image="$named:1@$digest"
}

@test "image: malformed names are refused before anything is submitted" {
	local before
	refused '--container-image needs a value: [REGISTRY/]NAME[:TAG][@DIGEST]' --container-image=
	for name in 'a b' Upper a:b:c "$named:" "$named:-x" "$named@sha256:12" "$named@md5:0" "$named@" '#x' 'docker://' \
		"$BROLGA_TEST_REGISTRY/" "$BROLGA_TEST_REGISTRY/Upper" 'a/../b' 'a//b' '-x' $'a\nb' 'http://x/y'; do
		before=$(last_job)
		run_fails crun --container-image="$name" true
		expect_match '^srun: error: brolga: error: --container-image: '
		[[ $(grep -cE 'brolga: error: ' <<<"$output") == 1 ]] || fail "$output"
		[[ $(last_job) == "$before" ]]
	done
	given BROLGA_CONTAINER_IMAGE=
	refused 'BROLGA_CONTAINER_IMAGE is empty: unset it or give it a value'
}

@test "image: other container options without one are refused before anything is submitted" {
	for option in --container-mounts=/tmp --container-workdir=/ --container-env=A --container-writable \
		--container-readonly --container-mount-home --no-container-mount-home; do
		refused 'container options are given, but no image' "$option"
		expect_line 'brolga: hint: add --container-image=IMAGE or --environment=NAME, or leave the other container options out'
	done
}
