#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# What users and administrators do with images that are cached or stored: list,
# inspect, verify, remove, collect garbage.

load ../lib/helpers
load ../lib/lifecycle

# as_root: brolga as an administrator calls it on this cluster.
as_root() { brolga "$1" --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "${@:2}"; }
as_self() { as_user brolga "$1" --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "${@:2}"; }

# age FILE DAYS: it was last used so many days ago.
age() { touch --date="-$2 days" "$1"; }

manifest_of() { basename "$(store_file "$1")" .squashfs; }

@test "images: the store's list has who wanted an image and when it was last used" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	age "$BROLGA_CLUSTER_DIR/store/sha256/$(manifest_of "$ref").json" 30
	run_ok as_root images --store
	expect_match "^$ref +sha256:[0-9a-f]{12} +[0-9]+ MiB .* $(date --date='-30 days' +%F) .* $BROLGA_TEST_USER +$BROLGA_CLUSTER_DIR/store\$"
	# Running it is a use, and is noted by the helper.
	run_ok crun --container-image="$ref" cat /stamp
	run_ok as_root images --store --json
	used=$(jq -r --arg ref "$ref" '.[] | select(.reference == $ref) | .lastUsed' <<<"$output")
	(($(date +%s) - $(date --date="$used" +%s) < 300))
	run_fails as_self images --store
	expect_line "brolga: error: only root and brolga may look into the store"
}

@test "images: the cache's list is the user's own" {
	ref=$(fresh_image)
	run_ok as_self pull --quiet "$ref"
	run_ok as_self images
	expect_match "^$ref +sha256:[0-9a-f]{12} .* no\$"
	run_ok crun --container-image="$ref" cat /stamp
	run_ok as_self images
	expect_match "^$ref .* yes\$"
	run_ok as_self images -q
	expect_line "sha256:$(manifest_of "$ref")"
}

@test "inspect: shows configuration, layers, and whether the store has the image" {
	ref=$(fresh_image)
	run_ok as_self pull --quiet "$ref"
	run_ok as_self inspect "$ref"
	expect_match "^Reference +$ref\$"
	expect_match "^Digest +sha256:$(manifest_of "$ref")\$"
	expect_match '^Layers +sha256:[0-9a-f]{64} [0-9]+ MiB, cached$'
	expect_match '^Store +not there$'
	run_ok crun --container-image="$ref" cat /stamp
	run_ok as_self inspect --json "$ref"
	[[ $(jq -r '.stores[0].dir' <<<"$output") == "$BROLGA_CLUSTER_DIR/store" ]]
	(($(jq '.layers | length' <<<"$output") == 1))
	run_ok as_root inspect --store --json "sha256:$(manifest_of "$ref" | cut -c1-12)"
	[[ $(jq -r '.reference' <<<"$output") == "$ref" ]]
	[[ $(jq -r '.squashfs' <<<"$output") == sha256:$(sha256sum "$(store_file "$ref")" | cut -d' ' -f1) ]]
	run_fails as_self inspect no/such:image
	expect_line "brolga: error: inspect no/such:image: not in the image cache"
}

@test "verify: names a damaged layer, removes it, and a pull fetches it again" {
	ref=$(fresh_image)
	run_ok as_self pull --quiet "$ref"
	layer=$(as_self inspect --json "$ref" | jq -r '.layers[0].digest')
	run_ok as_self verify
	expect_match "^ok +$ref sha256:"
	printf XXXXXXXX | dd of="$user_home/.cache/brolga/blobs/sha256/${layer#sha256:}" bs=1 seek=1000 conv=notrunc status=none
	run_fails as_self verify "$ref"
	((status == 1))
	expect_match "^damaged $ref sha256:.*: blob $layer"
	expect_match '^brolga: hint: --repair'
	run_ok as_self verify --repair "$ref"
	run_ok as_self pull --quiet "$ref"
	run_ok as_self verify "$ref"
	run_ok crun --container-image="$ref" cat /stamp
}

@test "verify: a damaged image of the store is removed, and converted again when it is used" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	file=$(store_file "$ref")
	run_ok as_root verify --store "sha256:$(manifest_of "$ref")"
	printf XXXXXXXX | dd of="$file" bs=1 seek=5000 conv=notrunc status=none
	run_fails as_root verify --store "$ref"
	expect_match "^damaged $ref sha256:.*: the image in the store is damaged"
	run_ok as_root verify --store --repair "$ref"
	[[ ! -e $file ]]
	run_ok crun --container-image="$ref" cat /stamp
	run_ok as_root verify --store "$ref"
}

@test "rmi: an image is named as the list prints it" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	short=$(as_root images --store | awk -v ref="$ref" '$1 == ref { print $2 }')
	run_ok as_root rmi --store "$short"
	[[ ! -e $(store_file "$ref") ]]
	run_fails as_root rmi --store "$short"
	expect_line "brolga: error: remove $short: image is not in the store"
	run_ok as_root rmi --store --force "$short"
}

@test "gc: the store loses what was not used for long, but not what a step uses" {
	run_ok as_root gc --store --older-than 1000d # leases that killed processes have left
	unused=$(fresh_image)
	used=$(fresh_image)
	recent=$(fresh_image)
	for ref in "$unused" "$recent"; do
		run_ok crun --container-image="$ref" cat /stamp
	done
	in_background crun --container-image="$used" bash -c "$until_go; cat /stamp"
	tasks_run 1
	for ref in "$unused" "$used"; do
		age "$BROLGA_CLUSTER_DIR/store/sha256/$(manifest_of "$ref").json" 40
	done
	run_ok as_root gc --store --older-than 30d --dry-run
	expect_match "^would remove image $unused@sha256:.* \([0-9]+ MiB\)\$"
	refute_match "$used|$recent"
	[[ -e $(store_file "$unused") ]]
	run_ok as_root gc --store --older-than 30d
	expect_match '^removed 1, [0-9]+ MiB$'
	[[ ! -e $(store_file "$unused") && -e $(store_file "$used") && -e $(store_file "$recent") ]]
	go_on
	background_ends
	((status == 0)) || fail "$output"
	run_ok as_root gc --store --older-than 30d
	[[ ! -e $(store_file "$used") && -e $(store_file "$recent") ]]
	expect_clean
}

@test "gc: the cache loses what was not used for longest until it is small enough" {
	forget_cache
	first=$(fresh_image 3)
	second=$(fresh_image 3)
	for ref in "$first" "$second"; do
		run_ok as_self pull --quiet "$ref"
	done
	# Used after it was pulled.
	age "$user_home/.cache/brolga/blobs/sha256/$(manifest_of "$second")" -1
	run_ok as_self gc --max-size "$(du -sb "$user_home/.cache/brolga/blobs" | awk '{ print int($1 * 0.7) }')"
	expect_match "^removed image $first \([0-9]+ MiB\)\$"
	run_ok as_self images
	expect_match "^$second "
	refute_match "^$first "
	run_fails as_self gc --max-size much
	((status == 2))
	expect_match '"much" is not a size such as 20g'
	# Other tests expect it in the cache.
	run_ok as_self pull --quiet "$BROLGA_TEST_IMAGE"
}

@test "gc: what a killed conversion left goes, whatever the limits" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun --container-image="$ref" cat /stamp
	conversions_stuck
	run_ok as_root gc --store
	! no_drafts || fail "the draft of a conversion that is going on is gone"
	kill -KILL "$(our_programs bin/brolga convert)"
	background_ends
	((status != 0))
	# The helper has removed the draft. One that was killed with the converter leaves this.
	no_drafts
	install -o brolga -m 0600 /etc/hostname "$BROLGA_CLUSTER_DIR/store/sha256/.tmp-$(manifest_of "$ref")-KILLED.squashfs"
	run_ok as_root gc --store
	expect_match '^removed unfinished image '
	no_drafts
	fast_conversions
	run_ok crun --container-image="$ref" cat /stamp
	expect_clean
}

@test "store_max_size: the converter makes room with what was not used for long" {
	unused=$(fresh_image)
	run_ok crun --container-image="$unused" cat /stamp
	age "$BROLGA_CLUSTER_DIR/store/sha256/$(manifest_of "$unused").json" 40
	rm -f "$BROLGA_CLUSTER_DIR/store/collected"
	site_config 'store_max_size = "1k"'
	site_config 'store_user_share = "0"'
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	[[ ! -e $(store_file "$unused") && -e $(store_file "$ref") ]]
}

@test "store_copy_to: all steps of a node run from one copy, and leave it to the next" {
	copies=/dev/shm/brolga-copies-$$
	# The kernel prints the path inside the tmpfs.
	site_config "store_copy_to = \"$copies\""
	ref=$(fresh_image)
	run_ok crun -N2 --ntasks-per-node=2 --container-image="$ref" bash -c 'cat /sys/block/loop*/loop/backing_file'
	expect_match "/${copies##*/}/sha256/$(manifest_of "$ref").squashfs\$"
	refute_match "^$(store_file "$ref")\$"
	run_ok crun --container-image="$ref" cat /stamp
	expect_match '^life/'
	run_fails as_user ls "$copies"
	[[ -z $(find "$copies" ! -user brolga) ]]
	# It is removed with the image.
	run_ok as_root rmi --store "$ref"
	[[ ! -e $(store_file "$ref") && -z $(find "$copies/sha256" -type f) ]]
	# Another user's directory is not used, and is no reason to fail.
	rm -rf "$copies"
	as_user mkdir "$copies"
	run_ok crun --container-image="$ref" bash -c 'cat /sys/block/loop*/loop/backing_file'
	expect_match "^$(store_file "$ref")\$"
	[[ -z $(find "$copies" -mindepth 1) ]]
	rm -rf "$copies"
	expect_clean
}

@test "store: images are found in the second directory, and new ones go to the first" {
	old=$(fresh_image)
	run_ok crun --container-image="$old" cat /stamp
	first=$BROLGA_CLUSTER_DIR/first
	install -d -m 0711 -o brolga -g brolga "$first"
	sed -i "s|^store = .*|store = [\"/no/such/store\", \"$first\", \"$BROLGA_CLUSTER_DIR/store\"]|" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	count_conversions
	run_ok crun --container-image="$old" cat /stamp
	(($(conversions) == 0))
	new=$(fresh_image)
	run_ok crun --container-image="$new" cat /stamp
	[[ -e $first/sha256/$(manifest_of "$new").squashfs && ! -e $(store_file "$new") ]]
	run_ok as_root images --store
	expect_match "^$old .* $BROLGA_CLUSTER_DIR/store\$"
	expect_match "^$new .* $first\$"
	rm -rf "$first"
}

@test "store: one of a later Brolga is refused with words" {
	ref=$(fresh_image)
	echo 2 | install -o brolga -m 0600 /dev/stdin "$BROLGA_CLUSTER_DIR/store/format"
	run crun --container-image="$ref" cat /stamp
	echo 1 | install -o brolga -m 0600 /dev/stdin "$BROLGA_CLUSTER_DIR/store/format"
	((status != 0))
	expect_match "brolga: error: .*/store/format has store format 2, and this Brolga knows up to 1"
	expect_match 'brolga: hint: an administrator updates Brolga'
	run_ok crun --container-image="$ref" cat /stamp
	nodes_idle
}
