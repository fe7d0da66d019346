# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# The test images: built once per recipe, then only pushed.
# Sourced by scripts/cluster.

images=(debian:12 distroless:latest)

push_images() {
	local layout image
	layout=$(cached_layout)
	for image in "${images[@]}"; do
		push_image "$layout:${image%:*}" "$registry/$image"
	done
	push_image "$layout:distroless" "$private_registry/secret/distroless:latest" \
		--dest-creds "$registry_user:$registry_password"
}

push_image() {
	local from=$1 to=$2
	shift 2
	skopeo --insecure-policy copy --quiet --dest-tls-verify=false "$@" "oci:$from" "docker://$to"
}

# Prints the directory of the OCI layout with all images, after building it if
# no image of this recipe is there.
cached_layout() {
	local hash layout image
	hash=$(recipe_hash)
	layout=$image_cache/$hash
	mkdir -p "$image_cache"
	exec 9>"$image_cache/lock"
	flock 9
	if [[ ! -d $layout ]]; then
		rm -rf "$layout.new"
		for image in "${images[@]}"; do
			say "building image ${image%:*} (once)" >&2
			"$here/build-image" "$repo/integration/images/${image%:*}" "$layout.new" >"$dir/log/image-${image%:*}.log" 2>&1
		done
		mv "$layout.new" "$layout"
	fi
	exec 9>&-
	printf '%s\n' "$layout"
}

recipe_hash() {
	(cd "$repo" && find integration/images scripts/build-image -type f -print0 | sort -z |
		xargs -0 sha256sum | sha256sum | cut -c1-16)
}
