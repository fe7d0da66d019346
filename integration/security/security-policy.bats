#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Which images a site lets run: signatures that it requires, and lists of what is
# allowed and denied. The user owns the cache, so what counts is decided on the
# compute node.

load ../lib/helpers
load ../lib/lifecycle
load ../lib/signatures

lifecycle_setup=$(declare -f setup)
eval "lifecycle_${lifecycle_setup}"

setup() {
	lifecycle_setup
	make_keys
}

# submitted: no job came of what was refused.
nothing_submitted() { [[ $(last_job) == "$1" ]] || fail "a job was submitted: $(last_job)"; }

last_job() { squeue --noheader --states=all --format=%A | sort -n | tail -n1; }

unsigned='must be signed: it has no signature$'
foreign='must be signed: none of its signatures counts: they are not of a key that this site trusts, or were changed'

@test "policy: an image with the required signature runs, on nodes that ask the registry nothing" {
	ref=$(fresh_image)
	sign site "$ref"
	policy require
	at_submission crun --hold -N4 -n4 --container-image="$ref" cat /stamp
	mark_logs
	release_jobs
	background_ends
	((status == 0)) || fail "$output"
	(($(grep -c '^life/' <<<"$output") == 4))
	(($(registry_requests) == 0))
	refute_match 'warning'
	expect_clean
}

@test "policy: an image signed with a bundle runs" {
	ref=$(fresh_image)
	sign_bundle site "$ref"
	policy require
	run_ok crun --container-image="$ref" cat /stamp
	expect_match '^life/'
}

@test "policy: nodes that lack the submitting host's cache fetch the signature, too" {
	ref=$(fresh_image)
	sign site "$ref"
	policy require
	at_submission crun --hold -N2 -n2 --container-image="$ref" cat /stamp
	forget_cache
	release_jobs
	background_ends
	((status == 0)) || fail "$output"
	expect_match '^life/'
}

@test "policy: an unsigned image is refused before anything is submitted" {
	ref=$(fresh_image)
	policy require
	before=$(last_job)
	run_fails crun --container-image="$ref" cat /stamp
	expect_match "brolga: error: pull .*$unsigned"
	expect_match '^brolga: hint: sign it with cosign'
	run_fails as_user sbatch --container-image="$ref" --output=/dev/null --wrap true
	expect_match "$unsigned"
	nothing_submitted "$before"
	# Its layers were not fetched for nothing.
	[[ -z $(find "$user_home/.cache/brolga/blobs" -name "$(layer_of "$ref")") ]]
}

layer_of() { skopeo inspect --tls-verify=false --raw "docker://$1" | jq -r '.layers[0].digest' | cut -d: -f2; }

@test "policy: a signature with another key does not count" {
	ref=$(fresh_image)
	sign foreign "$ref"
	policy require
	run_fails crun --container-image="$ref" cat /stamp
	expect_match "$foreign"
	sign_bundle foreign "$ref"
	run_fails crun --container-image="$ref" cat /stamp
	expect_match "$foreign"
}

@test "policy: a signature of another image does not count" {
	ref=$(fresh_image)
	other=$(fresh_image)
	sign site "$ref" "$(digest_of "$other")"
	policy require
	run_fails crun --container-image="$ref" cat /stamp
	expect_match "none of its signatures counts: they are of another image \($(digest_of "$other")\)"
}

@test "policy: a payload that was changed after it was signed does not count" {
	ref=$(fresh_image)
	other=$(fresh_image)
	sign site "$ref" "$(digest_of "$ref")" "$(digest_of "$other")"
	policy require
	run_fails crun --container-image="$ref" cat /stamp
	expect_match "$foreign"
}

@test "policy: with warn the image runs and the user reads one line" {
	ref=$(fresh_image)
	policy warn
	run_ok crun -N2 -n4 --container-image="$ref" cat /stamp
	(($(grep -c '^life/' <<<"$output") == 4))
	(($(grep -c 'warning' <<<"$output") == 1)) || fail "$output"
	expect_match "^brolga: warning: image $ref: images of .* $unsigned"
	# The second time costs no request.
	mark_logs
	run_ok crun --container-image="$ref" cat /stamp
	expect_match 'warning'
	(($(registry_requests) == 0))
	# It was signed meanwhile, which an explicit pull finds out.
	sign site "$ref"
	run_ok as_user brolga pull --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$ref"
	refute_match 'warning'
	run_ok crun --container-image="$ref" cat /stamp
	refute_match 'warning'
}

# never srun|run REF: runs what is cached, in a step or without Slurm.
never() {
	case $1 in
	srun) crun --container-pull=never --container-image="$2" cat /stamp ;;
	run) as_user BROLGA_CONFIG="$BROLGA_CONFIG" brolga run --pull=never "$2" cat /stamp ;;
	esac
}

@test "policy: --container-pull=never verifies the signatures in the cache, in a step and without Slurm" {
	ref=$(fresh_image)
	policy require
	sign site "$ref"
	run_ok as_user brolga pull --config "$BROLGA_CONFIG" "$ref"
	mark_logs
	for how in srun run; do
		run_ok never "$how" "$ref"
		expect_match '^life/'
	done
	(($(registry_requests) == 0)) || fail "$(registry_requests) requests"
	# Another key is required now. No registry is asked for such a signature.
	put "$tools/brolga.toml" "$BROLGA_CONFIG"
	policy require "$BROLGA_TEST_REGISTRY/**" foreign
	for how in srun run; do
		run_fails never "$how" "$ref"
		expect_match 'by the signatures in your cache \(no registry is to be asked\): .*must be signed'
	done
	(($(registry_requests) == 0)) || fail "$(registry_requests) requests"
	put "$tools/brolga.toml" "$BROLGA_CONFIG"
	policy warn "$BROLGA_TEST_REGISTRY/**" foreign
	for how in srun run; do
		run_ok never "$how" "$ref"
		expect_match 'warning: .*must be signed'
		expect_match '^life/'
	done
	as_user brolga rmi --force "$ref"
	for how in srun run; do
		run_fails never "$how" "$ref"
		expect_match 'is not in your cache, and is not to be pulled'
	done
	expect_clean
}

@test "policy: the most specific rule decides" {
	ref=$(fresh_image)
	policy require "$BROLGA_TEST_REGISTRY/**"
	policy off "${ref%:*}"
	run_ok crun --container-image="$ref" cat /stamp
	refute_match 'warning'
}

@test "policy: one that was tightened holds for what is in the store" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	[[ -e $(store_file "$ref") ]]
	policy require
	run_fails crun --container-image="$ref" cat /stamp
	expect_match "$unsigned"
	# Signed afterwards it runs, and was not converted again.
	sign site "$ref"
	count_conversions
	run_ok crun --container-image="$ref" cat /stamp
	expect_match '^life/'
	(($(conversions) == 0))
	expect_clean
}

@test "policy: the node decides, whatever was submitted" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	at_submission crun --hold --container-image="$ref" cat /stamp
	policy require
	release_jobs
	background_ends
	((status != 0))
	expect_match "brolga: error: .*$unsigned"
	refute_match '^life/'
	expect_clean
}

@test "policy: the user's cache cannot make an image a signed one" {
	signed=$(fresh_image)
	other=$(fresh_image)
	sign site "$signed"
	run_ok crun --container-image="$other" cat /stamp
	policy require
	run_ok crun --container-image="$signed" cat /stamp
	# The names of the signed image, those of its signatures too, now mean the other.
	index=$user_home/.cache/brolga/index.json
	a=$(digest_of "$signed") b=$(digest_of "$other")
	as_user cp "$index" "$index.new"
	sed -i "s/${a#sha256:}/${b#sha256:}/" "$index.new"
	as_user mv "$index.new" "$index"
	run_fails crun --container-image="$signed" cat /stamp
	expect_match 'must be signed'
	run_fails crun --container-image="${signed%:*}@$b" cat /stamp
	forget_cache
}

@test "policy: a key that users could change is not believed" {
	ref=$(fresh_image)
	sign site "$ref"
	policy require
	chown "$BROLGA_TEST_USER" "$keys/site.pub"
	run_fails crun --container-image="$ref" cat /stamp
	expect_match 'brolga: error: .*read key of the policy: .*someone other than root could change it'
	nodes_idle
}

@test "policy: a denied name and a denied digest are refused, stored or not" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	before=$(last_job)
	cp "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$tools/before.toml"
	site_config "policy.deny = [\"${ref%:*}\"]"
	run_fails crun --container-image="$ref" cat /stamp
	expect_line "brolga: error: image ${ref%:*} is denied on this cluster (${ref%:*})"
	cp "$tools/before.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	for digest in "$(digest_of "$ref")" "sha256:$(layer_of "$ref")"; do
		cp "$tools/before.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
		site_config "policy.deny = [\"$digest\"]"
		run_fails crun --container-image="$ref" cat /stamp
		expect_line "brolga: error: image ${ref%:*} is denied on this cluster ($digest)"
		run_fails crun --container-image="${ref%:*}@$(digest_of "$ref")" cat /stamp
		expect_match 'is denied on this cluster'
	done
	nothing_submitted "$before"
	cp "$tools/before.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	at_submission crun --hold --container-image="$ref" cat /stamp
	site_config "policy.deny = [\"$(digest_of "$ref")\"]"
	release_jobs
	background_ends
	((status != 0))
	expect_match 'brolga: error: .*is denied on this cluster'
	expect_clean
}

@test "policy: what is not on the list of allowed images is refused" {
	ref=$(fresh_image)
	site_config 'policy.allow = ["docker.io/library/**"]'
	run_fails crun --container-image="$ref" cat /stamp
	expect_line "brolga: error: image ${ref%:*} is not among those allowed on this cluster"
	cp -p "$tools/brolga.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	site_config "policy.allow = [\"docker.io/library/**\", \"$(digest_of "$ref")\"]"
	run_ok crun --container-image="$ref" cat /stamp
	expect_match '^life/'
}

@test "policy: a mistake in it is refused in words and drains no node" {
	policy sometimes
	run_fails crun --container-image="$BROLGA_TEST_IMAGE" true
	expect_match 'brolga: error: .*policy.signatures: .*check = "sometimes": want require, warn or off'
	nodes_idle
}
