# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Signatures of images, made with openssl and pushed with curl. "load ../lib/signatures"
# after "load ../lib/lifecycle"; call make_keys in setup.
#
#   make_keys                     key pairs site and foreign, in $keys; the public
#                                 keys are root's and readable for all
#   digest_of REF                 of its manifest, as the registry has it
#   policy CHECK [IMAGES [KEY]]   the site asks this of images (all, key site)
#   sign KEY REF [DIGEST [SIGNED]]  as cosign does: a payload about DIGEST (that of
#                                 REF), with the signature of one about SIGNED
#   sign_bundle KEY REF [DIGEST]  the same in a bundle of Sigstore's

make_keys() {
	local key
	keys=$tools/keys
	install -d -m 0755 "$keys"
	for key in site foreign; do
		openssl ecparam -name prime256v1 -genkey -noout -out "$keys/$key.pem"
		openssl ec -in "$keys/$key.pem" -pubout -out "$keys/$key.pub" 2>/dev/null
	done
	chmod 0644 "$keys"/*.pub
	# What leads to a key is root's; the directory above is for other tests.
	chown root "$tools"
}

digest_of() { skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$1"; }

policy() {
	site_config "[[policy.signatures]]"
	site_config "images = \"${2:-$BROLGA_TEST_REGISTRY/**}\""
	site_config "check = \"$1\""
	site_config "keys = [\"$keys/${3:-site}.pub\"]"
}

sign() {
	local digest=${3:-$(digest_of "$2")} value
	printf %s "$(payload "$digest")" >"$tools/payload"
	value=$(payload "${4:-$digest}" | signature "$1")
	push_manifest "$2" "$(tag_of "$(digest_of "$2")").sig" application/vnd.dev.cosign.simplesigning.v1+json \
		"$tools/payload" ', "annotations": {"dev.cosignproject.cosign/signature": "'"$value"'"}'
}

payload() {
	printf '{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"},"optional":null}' "$1"
}

# signature KEY: of standard input.
signature() { openssl dgst -sha256 -sign "$keys/$1.pem" | base64 -w0; }

sign_bundle() {
	local digest=${3:-$(digest_of "$2")} type=application/vnd.in-toto+json statement value manifest
	statement='{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"'${digest#sha256:}'"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}'
	value=$(printf 'DSSEv1 %d %s %d %s' "${#type}" "$type" "${#statement}" "$statement" | signature "$1")
	printf '{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payload":"%s","payloadType":"%s","signatures":[{"sig":"%s"}]}}' \
		"$(printf %s "$statement" | base64 -w0)" "$type" "$value" >"$tools/payload"
	push_manifest "$2" bundle application/vnd.dev.sigstore.bundle.v0.3+json "$tools/payload" ''
	manifest=$(digest_of_file "$tools/manifest")
	# This registry does not list what refers to a digest, so clients keep a tag.
	printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json","digest":"%s","size":%d}]}' \
		"$manifest" "$(stat -c %s "$tools/manifest")" >"$tools/index"
	put_manifest "$2" "$(tag_of "$(digest_of "$2")")" application/vnd.oci.image.index.v1+json "$tools/index"
}

tag_of() { printf '%s\n' "${1/:/-}"; }

digest_of_file() { printf 'sha256:%s\n' "$(sha256sum <"$1" | cut -d' ' -f1)"; }

# push_manifest REF TAG TYPE FILE EXTRA: a manifest with one layer.
push_manifest() {
	printf '{}' >"$tools/config"
	push_blob "$1" "$tools/config"
	push_blob "$1" "$4"
	printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":2},"layers":[{"mediaType":"%s","digest":"%s","size":%d%s}]}' \
		"$(digest_of_file "$tools/config")" "$3" "$(digest_of_file "$4")" "$(stat -c %s "$4")" "$5" >"$tools/manifest"
	put_manifest "$1" "$2" application/vnd.oci.image.manifest.v1+json "$tools/manifest"
}

put_manifest() {
	curl --silent --show-error --fail --request PUT --header "Content-Type: $3" --data-binary "@$4" \
		"http://$(repository "$1")/manifests/$2"
}

push_blob() {
	local location
	location=$(curl --silent --show-error --fail --request POST --output /dev/null --dump-header - "http://$(repository "$1")/blobs/uploads/" |
		tr -d '\r' | sed -n 's/^Location: //Ip')
	curl --silent --show-error --fail --request PUT --header 'Content-Type: application/octet-stream' --data-binary "@$2" \
		"$location&digest=$(digest_of_file "$2")"
}

# repository REF: in the registry's API.
repository() {
	local name=${1#*/}
	printf '%s/v2/%s\n' "${1%%/*}" "${name%:*}"
}
