#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# From the registry to the store: how often an image is fetched and converted,
# and what an interruption leaves.

load ../lib/helpers
load ../lib/lifecycle

# requests_for REF: to the registry, since the last mark_logs, for that image.
requests_for() { registry_requests . "/v2/$(name_of "$1")/"; }

name_of() {
	local name=${1#*/}
	printf '%s\n' "${name%:*}"
}

@test "pull: a job on four nodes makes the requests of a job on one" {
	one=$(fresh_image)
	four=$(fresh_image)
	mark_logs
	run_ok crun -N1 -n1 --container-image="$one" cat /stamp
	run_ok crun -N4 -n4 --container-image="$four" cat /stamp
	(($(requests_for "$one") >= 3))
	(($(requests_for "$four") == $(requests_for "$one")))
	(($(registry_requests GET "/$(name_of "$four")/manifests/") == 1))
	expect_clean
}

@test "pull: the second job finds the image and asks the registry nothing" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	mark_logs
	run_ok crun -N4 -n4 --container-image="$ref" cat /stamp
	expect_line "$(name_of "$ref")"
	(($(registry_requests) == 0))
}

@test "pull: nodes that lack the submitting host's cache fetch the image once" {
	one=$(fresh_image)
	four=$(fresh_image)
	mark_logs
	run_ok crun -N1 -n1 --container-image="$one" cat /stamp
	at_submission crun --hold -N4 -n4 --container-image="$four" cat /stamp
	(($(requests_for "$four") == $(requests_for "$one")))
	forget_cache
	mark_logs
	release_jobs
	background_ends
	((status == 0)) || fail "$output"
	expect_line "$(name_of "$four")"
	(($(registry_requests GET "/$(name_of "$four")/blobs/") == 2))
	(($(requests_for "$four") == 3))
	expect_clean
}

@test "pull: a batch script runs where the submitting host's cache is gone" {
	ref=$(fresh_image)
	run_ok as_user sbatch --hold --wait -o batch.out --container-image="$ref" --wrap 'cat /stamp' &
	retry 10 jobs_wait
	forget_cache
	release_jobs
	wait "$!"
	run_ok as_user cat batch.out
	expect_line "$(name_of "$ref")"
	expect_clean
}

@test "pull: one killed half way in srun is resumed by the next srun" {
	ref=$(fresh_image 20)
	slow_registry 5000000
	slow_ref=$(through_slow "$ref")
	mark_logs
	in_background crun --container-image="$slow_ref" cat /stamp
	pull_stuck 4000000
	kill -KILL "$(our_programs bin/brolga pull)"
	background_ends
	((status != 0))
	expect_match 'brolga: error: pull .*killed'
	fast_registry
	run_ok crun --container-image="$slow_ref" cat /stamp
	expect_line "$(name_of "$ref")"
	(($(resumed_bytes) > 10000000 && $(resumed_bytes) < 20000000))
	[[ -z $(partial_blobs) ]]
	expect_clean
}

@test "pull: one killed half way on a node fails the job and is resumed by the next" {
	ref=$(fresh_image 20)
	slow_registry 5000000
	slow_ref=$(through_slow "$ref")
	fast_registry
	at_submission crun --hold --container-image="$slow_ref" cat /stamp
	forget_cache
	hold_registry
	mark_logs
	release_jobs
	pull_stuck 4000000
	kill -KILL "$(our_programs bin/brolga pull)"
	background_ends
	((status != 0))
	expect_match 'brolga: error: .*killed'
	expect_clean
	fast_registry
	run_ok crun --container-image="$slow_ref" cat /stamp
	expect_line "$(name_of "$ref")"
	(($(resumed_bytes) > 10000000 && $(resumed_bytes) < 20000000))
	[[ -z $(partial_blobs) ]]
}

# Bytes sent in answer to requests for the rest of a blob.
resumed_bytes() { log_since_mark registry.log | awk '$9 == 206 {n += $10} END {print n + 0}'; }

@test "convert: four nodes that start at once convert an image once" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N4 -n4 --container-image="$ref" cat /stamp
	conversions_stuck
	retry 10 helpers_are 4
	fast_conversions
	background_ends
	((status == 0)) || fail "$output"
	(($(grep -cxF "$(name_of "$ref")" <<<"$output") == 4))
	(($(conversions) == 1))
	[[ -e $(store_file "$ref") ]]
	[[ -z $(store_drafts) ]]
	expect_clean
}

helpers_are() { (($(helpers | wc -l) == $1)); }

@test "convert: what is in the store is not written again" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	before=$(stat -c '%i %Y %Z' "$(store_file "$ref")")
	count_conversions
	forget_cache
	run_ok crun -N4 -n4 --container-image="$ref" cat /stamp
	(($(conversions) == 0))
	[[ $(stat -c '%i %Y %Z' "$(store_file "$ref")") == "$before" ]]
}

kill_converters() { our_programs bin/brolga convert | xargs -r kill -KILL; }

@test "convert: one killed half way fails the job and the next job succeeds" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -w n1 --container-image="$ref" cat /stamp
	conversions_stuck
	kill_converters
	background_ends
	((status != 0))
	expect_match 'brolga: error: .*killed'
	[[ ! -e $(store_file "$ref") ]]
	expect_clean
	fast_conversions
	run_ok crun -N2 -n2 --container-image="$ref" cat /stamp
	expect_line "$(name_of "$ref")"
	[[ -z $(store_drafts) ]]
	expect_clean
}

@test "convert: a node that waits for one that is killed converts the image itself" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun -N2 -n2 --container-image="$ref" cat /stamp
	conversions_stuck
	retry 10 helpers_are 2
	kill_converters
	retry 30 conversions_are 2
	fast_conversions
	background_ends
	((status != 0))
	expect_match 'brolga: error: .*killed'
	expect_line "$(name_of "$ref")"
	[[ -z $(store_drafts) ]]
	expect_clean
}

@test "convert: a failing tar2sqfs fails the job and leaves nothing half-written" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun --container-image="$ref" cat /stamp
	conversions_stuck
	kill -KILL "$(tar2sqfs_running)"
	background_ends
	((status != 0))
	expect_match 'brolga: error: .*tar2sqfs.*killed'
	[[ ! -e $(store_file "$ref") ]]
	[[ -z $(store_drafts) ]]
	expect_clean
	fast_conversions
	run_ok crun --container-image="$ref" cat /stamp
}

@test "convert: a draft that a killed conversion left goes with the next conversion" {
	left=$(fresh_image)
	other=$(fresh_image)
	slow_conversions
	in_background crun --container-image="$left" cat /stamp
	conversions_stuck
	kill -KILL "$(our_programs bin/brolga convert)"
	background_ends
	fast_conversions
	run_ok crun --container-image="$other" cat /stamp
	[[ -z $(store_drafts) ]]
}
