#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# What goes wrong is told in one line, the job fails, nodes stay in service and
# nothing half-written stays. Wrong values of options are in option-*.bats.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	store=$BROLGA_CLUSTER_DIR/store
	mine=$user_home/mounts
	as_user mkdir "$mine"
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	! mountpoint -q "$store" || umount "$store"
	! mountpoint -q "$mine/small" || umount "$mine/small"
	rm -rf "$mine" "$user_home/.docker"
	[[ ! -e ${aside:-} ]] || mv "$aside" "${aside%.aside}"
}

# An image with something in it that cannot be compressed; not pulled yet.
new_bulk() {
	new_image
	head -c 3000000 /dev/urandom >"$image/bulk"
	ref=$(mkimage --env PATH=/bin "$1" "$image")
}

digest_of() { skopeo inspect --tls-verify=false "${@:2}" --format '{{.Digest}}' "docker://$1"; }

# The file of the only layer of $ref in the registry.
layer_file() {
	local hex
	hex=$(skopeo inspect --tls-verify=false --raw "docker://$ref" | jq -r '.layers[].digest')
	hex=${hex#sha256:}
	printf '%s\n' "$BROLGA_CLUSTER_DIR/registry/docker/registry/v2/blobs/sha256/${hex:0:2}/$hex/data"
}

# Changes one byte in the middle.
spoil() { printf '\xff\x00' | dd of="$1" bs=1 seek=1500000 conv=notrunc status=none; }

job_state() { squeue --noheader --states=all --jobs="$1" --format=%T; }

job_failed() { [[ $(job_state "$1") == FAILED ]]; }

# fails_on_node TEXT OPTION...: a step and a batch job say TEXT and fail.
fails_on_node() {
	local text=$1
	shift
	run_fails crun "$@" -n2 sh -c 'echo ran'
	expect_one_error "$text"
	run_fails batch --output=job.out "$@" --wrap 'echo ran'
	[[ -z $output ]] || fail "$output"
	job_failed "$(last_job)" || fail "$(job_state "$(last_job)")"
	run_ok as_user cat job.out
	expect_one_error "$text"
	nodes_idle
}

# submitted OPTION...: a job that has not started; $job is its number.
submitted() {
	run_ok as_user sbatch --parsable --hold --output=job.out "$@" --wrap 'echo ran'
	job=${lines[-1]}
}

# then_fails TEXT: it is started now, says TEXT and fails.
then_fails() {
	scontrol release "$job"
	retry 20 job_failed "$job" || fail "$(job_state "$job")"
	run_ok as_user cat job.out
	expect_one_error "$1"
	nodes_idle
}

nothing_half_written() {
	run_ok find "$store" "$user_home/.cache/brolga" -name '.tmp-*' -o -name '.partial-*' -size +0
	[[ -z $output ]] || fail "$output"
	expect_no_leftovers
}

@test "error: an unknown image or tag" {
	refused "pull $BROLGA_TEST_REGISTRY/no/such:latest: the registry has no such image or tag" \
		--container-image="$BROLGA_TEST_REGISTRY/no/such"
	refused "pull $BROLGA_TEST_REGISTRY/debian:none: the registry has no such image or tag" \
		--container-image="$BROLGA_TEST_REGISTRY/debian:none"
	nothing_half_written
}

@test "error: a registry that cannot be reached, or does not exist" {
	refused 'pull 127.0.0.1:1/x:latest: registry 127.0.0.1:1 cannot be reached: connect: connection refused' \
		--container-image=127.0.0.1:1/x
	expect_match '^brolga: hint: '
	refused 'pull registry.invalid/x:latest: registry registry.invalid: no such host' \
		--container-image=registry.invalid/x
}

@test "error: a private image without a login, which works with one" {
	local pinned private=$BROLGA_TEST_PRIVATE_IMAGE
	local denied='the registry wants other credentials, or has no such image'
	as_user brolga rmi "$private" 2>/dev/null || true
	refused "pull $private: $denied" --container-image="$private"
	expect_match '^brolga: hint: log in with "brolga login '
	as_user mkdir "$user_home/.docker"
	jq -n --arg registry "$BROLGA_TEST_PRIVATE_REGISTRY" --arg login "$BROLGA_TEST_PRIVATE_LOGIN" \
		'{auths: {($registry): {auth: ($login | @base64)}}}' | as_user tee .docker/config.json >/dev/null
	run_ok crun --container-image="$private" /hello
	expect_line 'BROLGA_IMAGE: distroless'
	pinned=$private@$(digest_of "$private" --creds "$BROLGA_TEST_PRIVATE_LOGIN")
	# The store has it now. Who cannot fetch it may not run it all the same.
	as_user rm .docker/config.json
	as_user brolga rmi "$private"
	site_config 'cache = "{home}/mounts/nothing-yet"'
	refused "pull $private: $denied" --container-image="$private"
	refused "pull $pinned: $denied" --container-image="$pinned"
	given BROLGA_PIN="$pinned"
	run_fails as_user env "${with_env[@]}" srun --container-image="$private" /hello
	expect_match "brolga: error: pull $private.*: $denied"
	nodes_idle
}

@test "error: a wrong password" {
	as_user mkdir "$user_home/.docker"
	as_user brolga rmi "$BROLGA_TEST_PRIVATE_IMAGE" 2>/dev/null || true
	jq -n --arg registry "$BROLGA_TEST_PRIVATE_REGISTRY" '{auths: {($registry): {auth: ("alice:wrong" | @base64)}}}' |
		as_user tee .docker/config.json >/dev/null
	refused "pull $BROLGA_TEST_PRIVATE_IMAGE: the registry wants other credentials, or has no such image" \
		--container-image="$BROLGA_TEST_PRIVATE_IMAGE"
	refute_match 'wrong|YWxpY2U'
}

@test "error: a blob that the registry has spoiled" {
	new_bulk errors/corrupt:1
	spoil "$(layer_file)"
	run_fails crun --container-image="$ref" true
	expect_match "^brolga: error: pull $ref: blob sha256:[0-9a-f]{64} is corrupt: the registry sent content with digest sha256:[0-9a-f]{64}\$"
	((${#lines[@]} == 1)) || fail "$output"
	run_fails as_user sbatch --container-image="$ref" --wrap true
	expect_match 'is corrupt'
	nothing_half_written
}

@test "error: a blob that was spoiled in the cache after it was pulled" {
	local hex before
	new_bulk errors/cached:1
	as_user brolga pull --quiet "$ref" >/dev/null
	hex=$(basename "$(dirname "$(layer_file)")")
	before=$(find "$store" -type f | sort)
	chmod u+w "$user_home/.cache/brolga/blobs/sha256/$hex"
	spoil "$user_home/.cache/brolga/blobs/sha256/$hex"
	run crun --container-image="$ref" sh -c 'echo ran'
	if ((status != 0)); then
		expect_match "brolga: error: convert $ref.*: layer sha256:$hex: "
		[[ $(grep -c 'brolga: error: ' <<<"$output") == 1 ]] || fail "$output"
		[[ $(find "$store" -name '*.squashfs' | sort) == "$(grep squashfs <<<"$before")" ]]
	fi
	nodes_idle
	# What the user does about it.
	as_user brolga rmi "$ref"
	run_ok crun --container-image="$ref" stat -c %s /bulk
	expect_line 3000000
	nothing_half_written
}

@test "error: no space left in the store, and it works once there is" {
	local digest
	new_bulk errors/full:1
	as_user brolga pull --quiet "$ref" >/dev/null
	digest=$(digest_of "$ref")
	site_config 'store_user_share = "0"' # a quarter of so small a store is less than the image
	mount -t tmpfs -o "size=512k,mode=0711,uid=$(id -u brolga),gid=$(id -g brolga)" brolga-store "$store"
	fails_on_node "convert $ref@$digest: no space left in the store $store/sha256" \
		--container-image="$ref"
	expect_match 'brolga: hint: an administrator can make space with "brolga gc --store'
	run_ok find "$store" -type f ! -name format
	[[ -z $output ]] || fail "$output"
	umount "$store"
	run_ok crun --container-image="$ref" stat -c %s /bulk
	expect_line 3000000
	nothing_half_written
}

@test "error: no space left in the user's cache" {
	new_bulk errors/cache-full:1
	as_user mkdir "$mine/small"
	mount -t tmpfs -o "size=512k,uid=$(id -u "$BROLGA_TEST_USER")" brolga-cache "$mine/small"
	site_config 'cache = "{home}/mounts/small"'
	run_fails crun --container-image="$ref" true
	expect_match "^brolga: error: pull $ref: .*no space left"
	[[ $(grep -c 'error: ' <<<"$output") == 1 ]] || fail "$output"
	run_fails as_user sbatch --container-image="$ref" --wrap true
	[[ $(grep -c 'error: ' <<<"$output") == 1 ]] || fail "$output"
	nodes_idle
}

@test "error: a missing mount source, a missing working directory, a mount that cannot be made" {
	fails_on_node 'mount /no/such: no such file or directory on this node' \
		--container-image="$BROLGA_TEST_IMAGE" --container-mounts=/no/such:/mnt
	fails_on_node 'enter working directory /no/such: no such directory in the container' \
		--container-image="$BROLGA_TEST_IMAGE" --container-workdir=/no/such
	fails_on_node 'mount /etc at /etc/passwd: the destination is a file, the source a directory' \
		--container-image="$BROLGA_TEST_IMAGE" --container-mounts=/etc:/etc/passwd
}

@test "error: of several nodes each says its own, once for all tasks" {
	run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-mounts=/no/such:/mnt -N4 --ntasks-per-node=3 true
	[[ $(grep -c 'brolga: error: mount /no/such: no such file' <<<"$output") == 4 ]] || fail "$output"
	for node in n1 n2 n3 n4; do
		expect_match "$(stepd "$node")error: brolga: error: "
	done
	nodes_idle
}

@test "error: a command or interpreter that the image lacks is Slurm's to report" {
	run_fails crun -w n1 --container-image="$BROLGA_TEST_IMAGE" no-such-command
	expect_match "$(stepd n1)"'error: execve\(\): no-such-command: No such file or directory$'
	refute_match 'brolga: '
	printf '#!/no/such/interpreter\n' | as_user tee job.sh >/dev/null
	run_fails batch --output=job.out --container-image="$BROLGA_TEST_IMAGE" job.sh
	run_ok as_user cat job.out
	expect_match 'execve\(\): .*: No such file or directory$'
	refute_match 'brolga: '
	nodes_idle
}

@test "error: a batch script that the container cannot run" {
	run_fails batch --output=job.out --container-image="$BROLGA_TEST_SMALL_IMAGE" --wrap true
	job_failed "$(last_job)"
	run_ok as_user cat job.out
	expect_match 'execve\(\): .*: No such file or directory$'
	nodes_idle
}

@test "error: an image that is gone from cache and registry when the job starts" {
	local name digest
	new_image
	date >"$image/stamp"
	push_image errors/gone:1
	name=$ref digest=$(digest_of "$ref")
	submitted --container-image="$ref"
	as_user brolga rmi "$ref"
	curl -sSf -X DELETE "http://$BROLGA_TEST_REGISTRY/v2/errors/gone/manifests/$digest"
	then_fails "pull $name@$digest: the registry has no such image or tag"
	nothing_half_written
}

@test "error: the site's configuration is wrong where jobs are submitted, or only on the node" {
	local config=$BROLGA_CLUSTER_DIR/etc/brolga.toml line
	submitted --container-image="$BROLGA_TEST_SMALL_IMAGE"
	site_config 'stoer = "/misspelled"'
	line=$(grep -n stoer "$config" | cut -d: -f1)
	refused "read site configuration $config: unknown key stoer in $config:$line" --container-image="$BROLGA_TEST_IMAGE"
	then_fails "read site configuration $config: unknown key stoer in $config:$line"
	run_ok crun echo "plain jobs run"
}

@test "error: the helper is missing" {
	local helper=$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-helper
	submitted --container-image="$BROLGA_TEST_SMALL_IMAGE"
	aside=$helper.aside
	mv "$helper" "$aside"
	scontrol release "$job"
	retry 20 job_failed "$job"
	run_ok as_user cat job.out
	expect_match "brolga: error: start the helper $helper: No such file or directory"
	[[ $(grep -c 'error: ' <<<"$output") == 1 ]] || fail "$output"
	nodes_idle
}

@test "error: the site's configuration is not root's alone" {
	local config=$BROLGA_CLUSTER_DIR/etc/brolga.toml
	site_config ''
	chmod 0666 "$config"
	run fails_on_node "read site configuration: $config (owner 0, mode 0666): someone other than root could change it" \
		--container-image="$BROLGA_TEST_SMALL_IMAGE"
	chmod 0644 "$config"
	((status == 0)) || fail "$output"
}

@test "error: the store is missing" {
	new_image
	date >"$image/stamp"
	push_image errors/no-store:1
	site_config ""
	sed -i "s,^store = .*,store = \"$BROLGA_CLUSTER_DIR/no-store\"," "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	fails_on_node "get image $ref@$(digest_of "$ref"): the store $BROLGA_CLUSTER_DIR/no-store does not exist" \
		--container-image="$ref"
	expect_match 'brolga: hint: an administrator creates it, owned by brolga: '
}
