# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# GPUs as Slurm and CDI see them: devices with a number of no driver, four on each
# node (scripts/cluster.d/slurm.sh). "load ../lib/gpu" after "load ../lib/images".
#
#   specification FILE KIND [COMMON]   a CDI specification of the site's of the node's
#                                 four cards, named 0 to 3 and all, with edits (JSON)
#                                 that they have in common
#   hold COUNT                    so many of n1's GPUs, the first ones, are taken
#   gpu_ok CMD..., gpu_fails CMD...  run_ok and run_fails, once all other GPUs are free
#   gpu_setup, gpu_teardown       what a file calls in its setup and teardown

# Teardown removes below this: an empty name would be the root directory.
cluster=${BROLGA_CLUSTER_DIR:?no cluster}
cards=$cluster/gpu

gpu_setup() {
	mark_logs
	cdi=$cluster/cdi
	mkdir -p "$cdi"
	site_config "[cdi]
		directories = ['$cdi', '$cdi/late']"
	held=0
	as_user brolga pull --quiet "$BROLGA_TEST_IMAGE" >/dev/null # or it is told of in output
	# shellcheck disable=SC2034 # for the test
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
	given
}

gpu_teardown() {
	dump_logs_on_failure
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	restore_site_config
	rm -rf "$cluster/cdi"
	find "$cluster/host" -mindepth 1 -delete
}

specification() {
	jq -n --arg kind "$2" --arg cards "$cards" --argjson common "${3:-"{}"}" '
		def card: {hostPath: "\($cards)/card\(.)", path: "/dev/nvidia\(.)"};
		{cdiVersion: "0.6.0", kind: $kind, containerEdits: $common, devices: (
			[range(4) | {name: "\(.)", containerEdits: {deviceNodes: [card]}}] +
			[{name: "all", containerEdits: {deviceNodes: [range(4) | card]}}])}' >"$cdi/$1"
}

hold() {
	local job
	retry 20 others_ended || fail "$(squeue)"
	job=$(as_user sbatch --parsable --nodelist=n1 --gres=gpu:"$1" --output=/dev/null --wrap 'sleep 300')
	retry 20 is_running "$job" || fail "$(squeue)"
	held=1
}

gpu_ok() { retry 20 others_ended && run_ok "$@"; }
gpu_fails() { retry 20 others_ended && run_fails "$@"; }
others_ended() { (($(squeue --noheader | wc -l) <= held)); }

is_running() { [[ $(squeue --noheader --jobs="$1" --format=%T) == RUNNING ]]; }
