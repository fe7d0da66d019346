#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# brolga run: where images come from, and what becomes of what was made of them.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images
load ../lib/run

teardown() {
	dump_logs_on_failure
	restore_site_config
	chmod -R go-rwx "$BROLGA_CLUSTER_DIR/store/sha256" 2>/dev/null || true
	chmod 0711 "$BROLGA_CLUSTER_DIR/store/sha256" 2>/dev/null || true
	as_user rm -rf app.sqsh tree app.tar layout .docker
}

brolga_() { as_user BROLGA_CONFIG="$BROLGA_CONFIG" brolga "$@"; }

# own REFERENCE: what brolga images says of the user's own conversion.
own() { brolga_ images --json | jq -r --arg r "$1" '.[] | select(.reference == $r) | .own // false'; }

@test "run: a missing image is pulled, and then the registry is asked nothing" {
	new_image
	echo "$RANDOM$RANDOM" >"$image/stamp"
	missing=$(mkimage --env PATH=/bin run-missing "$image")
	run_ok brun "$missing" pwd
	expect_match '^brolga: pulled layer 1/1'
	mark_logs
	run_ok brun "$missing" pwd
	refute_match 'pulled'
	[[ $(registry_requests) == 0 ]] || fail "$(registry_requests) requests"
}

@test "run: pull=always finds out that a tag has moved, never asks nobody" {
	new_image
	echo one >"$image/stamp"
	push_image run-moving
	run_ok brun "$ref" cat /stamp
	expect_line one
	echo two >"$image/stamp"
	mkimage --env PATH=/bin run-moving "$image" >/dev/null
	run_ok brun "$ref" cat /stamp
	expect_line one
	run_ok brun --pull=never "$ref" cat /stamp
	expect_line one
	run_ok brun --pull=always "$ref" cat /stamp
	expect_line two
	brolga_ rmi "$ref"
	run -125 brun --pull=never "$ref" true
	expect_match "^brolga: error: .*$ref"
	[[ $output == *"brolga: hint: "* ]]
	run -125 brun --pull=sometimes "$ref" true
	expect_match 'sometimes'
}

@test "run: a private image needs the user's credentials" {
	run -125 brun "$BROLGA_TEST_PRIVATE_IMAGE"
	expect_match '^brolga: error: pull '
	brolga_ login --username "${BROLGA_TEST_PRIVATE_LOGIN%%:*}" --password-stdin "$BROLGA_TEST_PRIVATE_REGISTRY" <<<"${BROLGA_TEST_PRIVATE_LOGIN#*:}"
	run_ok brun "$BROLGA_TEST_PRIVATE_IMAGE"
	expect_line "arg0: /hello"
	brolga_ logout "$BROLGA_TEST_PRIVATE_REGISTRY"
	brolga_ rmi "$BROLGA_TEST_PRIVATE_IMAGE"
}

@test "run: squashfs files, directories, archives and layouts run where they are" {
	new_image
	echo local >"$image/stamp"
	mksquashfs "$image" "$user_home/app.sqsh" -quiet -no-progress >/dev/null
	cp -a "$image" "$user_home/tree"
	push_image run-local
	skopeo copy --quiet --src-tls-verify=false "docker://$ref" "oci-archive:$user_home/app.tar:x"
	skopeo copy --quiet --src-tls-verify=false "docker://$ref" "oci:$user_home/layout:x"
	chown -R "$BROLGA_TEST_USER:" "$user_home/app.sqsh" "$user_home/tree" "$user_home/app.tar" "$user_home/layout"
	for place in ./app.sqsh "$user_home/app.sqsh" dir:./tree oci-archive:app.tar oci-archive:./app.tar:x oci:./layout:x; do
		run_ok brun "$place" /bin/sh -c 'cat /stamp; echo new >/tmp/new && cat /tmp/new'
		expect_line local
		expect_line new
	done
	[[ ! -e $user_home/tree/tmp/new ]]
	run -125 brun ./app.sqsh
	expect_match '^brolga: error: .*/app.sqsh has no command of its own$'
	for wrong in ./missing.sqsh dir:./app.sqsh ./app.tar oci:./tree; do
		run -125 brun "$wrong" true
		[[ $(grep -c '^brolga: error: ' <<<"$output") == 1 ]] || fail "$output"
	done
	expect_nothing_left
}

@test "run: files of all owners are the user's, and can be changed" {
	new_image
	echo x >"$image/etc/theirs"
	chown 42:43 "$image/etc/theirs"
	chmod 0600 "$image/etc/theirs"
	mkdir -m 0700 "$image/private"
	echo y >"$image/private/file"
	chown -R 7:7 "$image/private"
	push_image run-owners
	run_ok brun "$ref" sh -c 'cat /etc/theirs /private/file; echo z >>/etc/theirs && echo w >/private/new && cat /etc/theirs && stat -c "%u" /etc/theirs'
	expect_line y
	expect_line z
	expect_line "$(id -u "$BROLGA_TEST_USER")"
}

@test "run: images, verify, gc and rmi know what was converted" {
	new_image
	echo "$RANDOM$RANDOM" >"$image/stamp"
	push_image run-own
	[[ $(own "$ref") == false ]]
	run_ok brun "$ref" pwd
	[[ $(own "$ref") == true ]]
	run_ok brolga_ images
	expect_match "^$ref .* own$"
	converted=$(find "$user_home/.cache/brolga/squashfs/sha256" -name '*.squashfs' -newer "$image/stamp" | head -n1)
	[[ -n $converted ]]

	run_ok brolga_ verify
	chmod u+w "$converted"
	printf x | dd of="$converted" bs=1 seek=100 conv=notrunc status=none
	run_fails brolga_ verify
	expect_match "^damaged $ref.*damaged"
	run_ok brolga_ verify --repair
	[[ $(own "$ref") == false ]]
	run_ok brun "$ref" pwd
	[[ $(own "$ref") == true ]]

	run_ok brolga_ gc --dry-run
	refute_match run-own
	brolga_ rmi "$ref"
	[[ ! -e $converted ]]
	# What a killed conversion left goes as well, and what the cache does not know any more.
	run_ok brun "$BROLGA_TEST_SMALL_IMAGE"
	as_user touch ".cache/brolga/squashfs/sha256/.tmp-$(printf '0%.0s' {1..64})-X.squashfs"
	as_user sh -c 'rm -rf .cache/brolga/index.json .cache/brolga/blobs/sha256/*'
	run_ok brolga_ gc
	expect_match '^removed converted '
	[[ -z $(find "$user_home/.cache/brolga/squashfs/sha256" -type f) ]]
	brolga_ pull --quiet "$BROLGA_TEST_IMAGE" >/dev/null
}

@test "run: an image that is removed while it runs stays for the command" {
	new_image
	echo "$RANDOM$RANDOM" >"$image/stamp"
	push_image run-removed
	run_background --mount-home "$ref" sh -c "echo ready; $until_go; cat /stamp && echo read"
	wait_for ready
	brolga_ rmi "$ref"
	go_on
	wait "$command"
	wait_for read
	expect_nothing_left
}

@test "run: a site's store that the user may read is used, and nothing is converted" {
	new_image
	echo "$RANDOM$RANDOM" >"$image/stamp"
	push_image run-store
	run_ok crun --container-image="$ref" pwd
	chmod go+rx "$BROLGA_CLUSTER_DIR/store/sha256"
	chmod go+r "$BROLGA_CLUSTER_DIR/store/sha256"/*
	run_ok brun "$ref" cat /stamp
	expect_line "$(<"$image/stamp")"
	[[ $(own "$ref") == false ]]
	chmod go-r "$BROLGA_CLUSTER_DIR/store/sha256"/*
	run_ok brun "$ref" cat /stamp
	[[ $(own "$ref") == true ]]
	brolga_ rmi "$ref"
}

@test "run: the site's policy and blocked registries hold here, too" {
	site_config '[policy]
deny = ["'"${BROLGA_TEST_IMAGE%:*}"'"]'
	run -125 brun "$BROLGA_TEST_IMAGE" true
	expect_match '^brolga: error: .*debian'
	restore_site_config
	site_config '[[registry]]
name = "'"$BROLGA_TEST_REGISTRY"'"
blocked = "it is gone"'
	run -125 brun "$BROLGA_TEST_SMALL_IMAGE"
	expect_match 'it is gone'
}

@test "run: an image for another kind of machine is refused" {
	brolga_ rmi --force "$BROLGA_TEST_SMALL_IMAGE"
	run -125 brun --platform=linux/nonsense "$BROLGA_TEST_SMALL_IMAGE"
	expect_match '^brolga: error: .*linux/nonsense'
	run -125 brun --platform=a/b/c/d "$BROLGA_TEST_IMAGE" true
	expect_match '^brolga: error: --container-platform: .*a/b/c/d'
}
