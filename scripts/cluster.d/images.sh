# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# The test images: built once per recipe, then only pushed. Those of the list are
# in every cluster's registry, others once a test asks for them.
# Sourced by scripts/cluster.

images=(debian:12 distroless:latest)

push_images() {
	local image
	for image in "${images[@]}"; do
		push_image "$(cached_image "${image%:*}")" "$registry/$image"
	done
	push_image "$(cached_image distroless)" "$private_registry/secret/distroless:latest" \
		--dest-creds "$registry_user:$registry_password"
}

# provide_image NAME: for the few tests that want another one.
provide_image() {
	[[ -d $repo/integration/images/$1 ]] || die "no recipe in integration/images for \"$1\""
	# shellcheck source=/dev/null
	registry=$(source "$dir/etc/env" && printf '%s' "$BROLGA_TEST_REGISTRY")
	skopeo inspect --raw --tls-verify=false "docker://$registry/$1:latest" >/dev/null 2>&1 ||
		push_image "$(cached_image "$1")" "$registry/$1:latest"
	printf '%s\n' "$registry/$1:latest"
}

push_image() {
	local from=$1 to=$2
	shift 2
	skopeo --insecure-policy copy --quiet --dest-tls-verify=false "$@" "oci:$from" "docker://$to"
}

# Prints an image, DIRECTORY:TAG, after building it if no image of this recipe is
# there.
cached_image() {
	local name=$1 layout
	layout=$image_cache/$name-$(recipe_hash "$name")
	mkdir -p "$image_cache"
	exec 9>"$image_cache/lock"
	flock 9
	if [[ ! -d $layout ]]; then
		rm -rf "$layout.new"
		say "building image $name (once)" >&2
		# mmdebstrap passes a descriptor to dash, which knows those below 10 only: bats
		# has many open.
		"$here/build-image" "$repo/integration/images/$name" "$layout.new" >"$dir/log/image-$name.log" 2>&1 \
			3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- || die "build image $name: see $dir/log/image-$name.log"
		mv "$layout.new" "$layout"
	fi
	exec 9>&-
	printf '%s\n' "$layout:$name"
}

# Other recipes use scripts of Debian's.
recipe_hash() {
	(cd "$repo" && find "integration/images/$1" integration/images/debian scripts/build-image -type f -print0 | sort -z |
		xargs -0 sha256sum | sha256sum | cut -c1-16)
}
