#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# The store is shared by all users of the cluster: who can read it, who can put
# what into it, and who can run what is in it.

load ../lib/helpers
load ../lib/lifecycle

other=$BROLGA_TEST_USER-other

setup_file() { useradd --create-home --shell /bin/bash "$other"; }

teardown_file() { userdel --remove "$other" 2>/dev/null; }

# as_other FUNCTION...: as_user or crun, as another user.
as_other() {
	local user_home
	user_home=$(getent passwd "$other" | cut -d: -f6)
	BROLGA_TEST_USER=$other "$@"
}

log_in() {
	as_user mkdir -p .docker
	printf '{"auths": {"%s": {"auth": "%s"}}}\n' "$BROLGA_TEST_PRIVATE_REGISTRY" \
		"$(printf %s "$BROLGA_TEST_PRIVATE_LOGIN" | base64)" |
		install -o "$BROLGA_TEST_USER" -m 0600 /dev/stdin "$user_home/.docker/config.json"
}

log_out() { rm -f "$user_home/.docker/config.json"; }

# private_image: a fresh one in the registry that wants a password.
private_image() {
	local dir
	dir=$(mktemp -d "$BATS_TEST_TMPDIR/private.XXXXXX")
	make_tree "$dir"
	printf '%s\n' "${dir##*.}" >"$dir/stamp"
	mkimage --private "secret/$(tr '[:upper:]' '[:lower:]' <<<"${dir##*.}")-$$" "$dir"
}

# layer_of REF: the file in the test user's cache with the only layer.
layer_of() {
	local digest
	digest=$(skopeo inspect --tls-verify=false --raw "docker://$1" | jq -r '.layers[0].digest')
	printf '%s\n' "$user_home/.cache/brolga/blobs/sha256/${digest#sha256:}"
}

# digest_of REF: of its manifest, as the test user's cache knows it.
digest_of() { as_user brolga images --json | jq -r --arg ref "$1" '.[] | select(.reference == $ref) | .digest'; }

@test "store: users cannot list, read or change what is in it" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	file=$(store_file "$ref")
	[[ -s $file ]]
	for path in "$file" "${file%.squashfs}.json"; do
		run_fails as_user cat "$path"
		run_fails as_user bash -c "echo >>$path"
		run_fails as_user rm -f "$path"
		run_fails as_user ln "$path" stolen
		run_fails as_user mv "$path" "$path.new"
		(($(stat -c %a "$path") == 600))
		[[ $(stat -c %U "$path") == brolga ]]
	done
	for dir in "$BROLGA_CLUSTER_DIR"/store{,/sha256,/lease}; do
		run_fails as_user ls "$dir"
		run_fails as_user touch "$dir/new"
		run_fails as_user mkdir "$dir/new"
	done
	[[ -z $(find "$BROLGA_CLUSTER_DIR/store" ! -user brolga) ]]
	[[ -z $(find "$BROLGA_CLUSTER_DIR/store" ! -type l -perm /066) ]]
}

@test "store: what the loop device shows cannot be read by users either" {
	ref=$(fresh_image)
	in_background crun --container-image="$ref" bash -c "$until_go"
	tasks_run 1
	for file in /sys/block/loop*/loop/backing_file; do
		[[ $(cat "$file" 2>/dev/null) != "$(store_file "$ref")" ]] || device=/dev/$(cut -d/ -f4 <<<"$file")
	done
	[[ -b $device ]]
	run_fails as_user head -c 4 "$device"
	run_ok crun --container-image="$ref" bash -c 'ls /dev'
	refute_match '^loop'
	go_on
	background_ends
}

@test "store: a private image runs for who has the credentials" {
	log_in
	ref=$(private_image)
	run_ok crun --container-image="$ref" cat /stamp
	log_out
	# A second run needs no credentials: this user has the manifest.
	run_ok crun --container-image="$ref" cat /stamp
	expect_clean
}

@test "store: a private image in it does not run for another user" {
	log_in
	ref=$(private_image)
	run_ok crun --container-image="$ref" cat /stamp
	stamp=${lines[-1]}
	log_out
	run_fails as_other crun --container-image="$ref" cat /stamp
	expect_match 'brolga: error: pull .*denied|brolga: error: pull .*(credentials|login|unauthorized)'
	refute_match "^$stamp"
	expect_clean
}

@test "store: to know the digest of a private image does not help another user" {
	log_in
	ref=$(private_image)
	run_ok crun --container-image="$ref" cat /stamp
	manifest=$(digest_of "$ref")
	[[ $manifest == sha256:* && -e $BROLGA_CLUSTER_DIR/store/sha256/${manifest#sha256:}.squashfs ]]
	log_out
	as_other forget_cache
	run_fails as_other crun --container-image="${ref%:*}@$manifest" cat /stamp
	expect_match 'brolga: error:'
	# An index in the cache that names the digest is not the manifest.
	as_other as_user mkdir -p .cache/brolga/blobs/sha256
	as_other as_user bash -c "echo '{\"imageLayoutVersion\": \"1.0.0\"}' >.cache/brolga/oci-layout
		echo '{}' >.cache/brolga/blobs/sha256/${manifest#sha256:}
		printf '{\"schemaVersion\": 2, \"manifests\": [{\"mediaType\": \"application/vnd.oci.image.manifest.v1+json\", \"digest\": \"%s\", \"size\": 3, \"annotations\": {\"org.opencontainers.image.ref.name\": \"%s\"}}]}' \
			$manifest $ref >.cache/brolga/index.json"
	run_fails as_other crun --container-image="$ref" cat /stamp
	expect_match 'brolga: error:'
	# Nor does it to tell the nodes what the submitting host would tell them.
	run_fails as_other as_user env "BROLGA_CONTAINER_IMAGE=$ref" "$(pin_variable)=$ref@$manifest" \
		srun --time=5 cat /stamp
	expect_clean
}

pin_variable() { sed -n 's/.*PinVariable *= "\(.*\)"/\1/p' "$repo/pkg/option/option.go"; }

@test "store: a public image in it runs for another user without fetching a layer" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	stamp=${lines[-1]}
	as_other forget_cache
	mark_logs
	count_conversions
	run_ok as_other crun --container-image="$ref" cat /stamp
	(($(registry_requests GET manifests/) == 1))
	# The configuration is a blob too.
	(($(registry_requests GET blobs/) == 1))
	(($(conversions) == 0))
	expect_clean
}

@test "store: a layer changed in the user's cache is refused by name and not stored" {
	ref=$(fresh_image)
	run_ok as_user brolga pull --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$ref"
	layer=$(layer_of "$ref")
	printf X | dd of="$layer" bs=1 seek=1000000 conv=notrunc status=none
	run_fails crun --container-image="$ref" cat /stamp
	expect_match "brolga: error: .*$(basename "$layer")"
	[[ ! -e $(store_file "$ref") ]]
	[[ -z $(store_drafts) ]]
	expect_clean
	# For others the image is what the registry has.
	run_ok as_other crun --container-image="$ref" cat /stamp
}

@test "store: after another pull a changed layer is the registry's again" {
	ref=$(fresh_image)
	run_ok as_user brolga pull --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$ref"
	printf X | dd of="$(layer_of "$ref")" bs=1 seek=1000000 conv=notrunc status=none
	run_fails crun --container-image="$ref" cat /stamp
	run_ok as_user brolga pull --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$ref"
	run_ok crun --container-image="$ref" cat /stamp
}

@test "store: a layer that changes while it is read is not stored" {
	ref=$(fresh_image 50)
	as_user brolga pull --quiet --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$ref"
	layer=$(layer_of "$ref")
	# What has been read by now, and ahead, is less than half of it.
	slow_conversions
	in_background crun --container-image="$ref" cat /stamp
	conversions_stuck
	printf XXXX | dd of="$layer" bs=1 seek=48000000 conv=notrunc status=none
	fast_conversions
	background_ends
	((status != 0))
	expect_match "brolga: error: .*$(basename "$layer")"
	[[ ! -e $(store_file "$ref") ]]
	[[ -z $(store_drafts) ]]
	expect_clean
}

@test "store: a changed manifest in the user's cache is refused" {
	ref=$(fresh_image)
	as_user brolga pull --quiet --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$ref"
	digest=$(digest_of "$ref")
	sed -i 's/"size":[0-9]*/"size":1/' "$user_home/.cache/brolga/blobs/sha256/${digest#sha256:}"
	run crun --container-image="$ref" cat /stamp
	# Fetched again or refused, but never believed.
	((status != 0)) || grep -q '"size":[0-9][0-9]' "$user_home/.cache/brolga/blobs/sha256/${digest#sha256:}"
	expect_clean
}

@test "store: symbolic links and FIFOs in the user's cache lead root nowhere" {
	for trap in 'ln -s /etc/shadow' mkfifo; do
		ref=$(fresh_image)
		as_user brolga pull --quiet --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$ref"
		layer=$(layer_of "$ref")
		as_user rm "$layer"
		as_user bash -c "$trap $layer"
		run_ok crun --container-image="$ref" cat /stamp
		expect_match '^life/'
		# It was no layer, so it was fetched.
		[[ -f $layer && ! -L $layer ]]
	done
	expect_clean
}

@test "store: steps of two users share the loop device of an image" {
	ref=$(fresh_image)
	in_background crun --container-image="$ref" bash -c "$until_go"
	tasks_run 1
	run_ok as_other crun --container-image="$ref" bash -c 'cat /sys/block/loop*/loop/backing_file'
	(($(grep -cF "$(basename "$(store_file "$ref")")" <<<"$output") == 1))
	go_on
	background_ends
	((status == 0)) || fail "$output"
	expect_clean
}

@test "store: an image that is removed while a step runs stays for that step" {
	ref=$(fresh_image)
	in_background crun --container-image="$ref" bash -c "$until_go; cat /stamp"
	tasks_run 1
	file=$(store_file "$ref")
	run_ok brolga rmi --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" --store "sha256:$(basename "$file" .squashfs)"
	[[ ! -e $(store_file "$ref") ]]
	go_on
	background_ends
	((status == 0)) || fail "$output"
	expect_match '^life/'
	run_ok crun --container-image="$ref" cat /stamp
	[[ -e $(store_file "$ref") ]]
	expect_clean
}

# copies_in DIRECTORY: nodes keep copies there, and another store has an image, in the file $theirs.
copies_in() {
	local other_image second=$BROLGA_CLUSTER_DIR/second
	install -d -m 0711 -o brolga -g brolga "$second"
	sed -i "s|^store = .*|store = \"$second\"|" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	other_image=$(fresh_image 4)
	run_ok crun --container-image="$other_image" cat /stamp
	theirs=$(ls "$second"/sha256/*.squashfs)
	sed -i "s|^store = .*|store = [\"$BROLGA_CLUSTER_DIR/store\", \"$second\"]|" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	site_config "store_copy_to = \"$1\"
store_copy_size = \"9m\""
}

@test "store: a place for copies that a user has made first leads to no other store" {
	ways=/dev/shm/brolga-ways-$$
	copies_in "$ways/copies"
	as_user mkdir "$ways"
	as_user ln -s "$BROLGA_CLUSTER_DIR/second" "$ways/copies"
	ref=$(fresh_image 6)
	run_ok crun --container-image="$ref" cat /stamp
	[[ -e $theirs ]] || fail "the other store has lost an image"
	((1 == $(find "$BROLGA_CLUSTER_DIR"/second/sha256 -name '*.squashfs' | wc -l))) || fail "a copy was made in the other store"
	run_fails env BROLGA_CONFIG="$BROLGA_CONFIG" brolga images --store
	expect_match "^brolga: error: store_copy_to: $ways \(owner [0-9]+, mode [0-7]+\): someone other than root and brolga could change it$"
	expect_match '^brolga: hint: remove it, and make it when the node starts'
	# Root makes nothing in the directory either.
	rm "$ways/copies"
	run_ok crun --container-image="$ref" cat /stamp
	[[ -z $(ls -A "$ways") ]] || fail "root made $(ls "$ways")"
	rm -r "$ways" "$BROLGA_CLUSTER_DIR/second"
}

@test "store: a place for named containers that a user has made first is refused, and nothing is made there" {
	ways=/dev/shm/brolga-ways-$$
	as_user mkdir "$ways" "$ways/dir"
	sed -i "s|^named.directory = .*|named.directory = \"$ways/dir\"|" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	for trick in "mkdir $ways/dir" "ln -s $ways/target $ways/dir"; do
		as_user sh -c "rm -r $ways; mkdir $ways $ways/target; $trick"
		run_fails crun -w n1 --container-image="$BROLGA_TEST_IMAGE" --container-name=x true
		expect_match "brolga: error: open container x: $ways \(owner [0-9]+, mode [0-7]+\): someone other than root could change it$"
		[[ -z $(find "$ways" -user root) ]] || fail "root made $(find "$ways" -user root)"
	done
	rm -r "$ways"
	nodes_idle
}

@test "helper: nothing of the user's environment reaches it or a conversion" {
	ref=$(fresh_image)
	as_user mkdir -p bin
	printf '#!/bin/bash\ntouch %s/fake-ran\n' "$user_home" >"$user_home/bin/tar2sqfs"
	for name in brolga brolga-helper squashfs mount modprobe; do
		cp "$user_home/bin/tar2sqfs" "$user_home/bin/$name"
	done
	chmod 0755 "$user_home"/bin/*
	slow_conversions
	in_background as_user env PATH="$user_home/bin:/usr/bin:/bin" GOGC=17 GODEBUG=gctrace=1 GOTRACEBACK=crash \
		LD_PRELOAD=libm.so.6 TMPDIR="$user_home" BASH_ENV="$user_home/bin/tar2sqfs" MARKER=of-the-user \
		srun --time=5 --container-image="$ref" cat /stamp
	conversions_stuck
	for pid in $(helpers) $(our_programs bin/brolga convert) $(tar2sqfs_running); do
		tr '\0' '\n' <"/proc/$pid/environ" >"$BATS_TEST_TMPDIR/environ"
		! grep -E "$user_home|GOGC=17|GODEBUG|GOTRACEBACK|LD_PRELOAD|TMPDIR|BASH_ENV|MARKER|SLURM" "$BATS_TEST_TMPDIR/environ" ||
			fail "$(tr '\0' ' ' <"/proc/$pid/cmdline") has the user's environment"
	done
	fast_conversions
	background_ends
	((status == 0)) || fail "$output"
	[[ ! -e $user_home/fake-ran ]]
	as_user rm -r bin
}

@test "helper: conversions run as the store owner, without capabilities" {
	ref=$(fresh_image)
	slow_conversions
	in_background crun --container-image="$ref" cat /stamp
	conversions_stuck
	for pid in $(our_programs bin/brolga convert) $(tar2sqfs_running); do
		output=$(<"/proc/$pid/status")
		expect_match "^Uid:(	$(id -u brolga)){4}$"
		expect_match "^Gid:(	$(id -g brolga)){4}$"
		expect_match '^Groups:	 *$'
		expect_match '^CapEff:	0+$'
		expect_match '^CapPrm:	0+$'
		# The kernel keeps this for each thread.
		! grep -L '^NoNewPrivs:	1$' "/proc/$pid/task/"*/status | grep . || fail "a thread of $pid could gain privilege"
	done
	fast_conversions
	background_ends
	((status == 0)) || fail "$output"
}

@test "helper: pulls on a node run as the user, without capabilities" {
	ref=$(fresh_image 20)
	slow_registry 5000000
	fast_registry
	at_submission crun --hold --container-image="$(through_slow "$ref")" cat /stamp
	forget_cache
	hold_registry
	release_jobs
	pull_stuck 4000000
	output=$(<"/proc/$(our_programs bin/brolga pull)/status")
	expect_match "^Uid:(	$(id -u "$BROLGA_TEST_USER")){4}$"
	expect_match "^Gid:(	$(id -g "$BROLGA_TEST_USER")){4}$"
	expect_match '^CapEff:	0+$'
	expect_match '^CapPrm:	0+$'
	for group in brolgagrp1 brolgagrp2 brolgagrp3; do
		expect_match "^Groups:.*[	 ]$(getent group "$group" | cut -d: -f3) "
	done
	fast_registry
	background_ends
	((status == 0)) || fail "$output"
}

@test "helper: the site's configuration counts only where root alone can write it" {
	ref=$(fresh_image)
	run_ok crun --container-image="$ref" cat /stamp
	chmod 0666 "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	run_fails crun --container-image="$ref" cat /stamp
	expect_match 'brolga: error: .*brolga.toml'
	chmod 0644 "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	run_ok crun --container-image="$ref" cat /stamp
	nodes_idle
}
