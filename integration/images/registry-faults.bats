#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A registry that fails, for a while or for good: the pull succeeds by itself, or
# says in one line what is wrong.

load ../lib/helpers
load ../lib/registry

setup_file() {
	start_faulty_registry
	export faulty
	export name=faulty/bulk:1
	local image=$BATS_FILE_TMPDIR/image
	mkdir "$image"
	head -c 3000000 /dev/urandom >"$image/bulk"
	layer=$(skopeo inspect --tls-verify=false --raw "docker://$(mkimage "$name" "$image")" | jq -r '.layers[0].digest')
	export layer
}

teardown_file() { stop_registries; }

setup() {
	mark_logs
	ref=$faulty/$name
}

teardown() {
	dump_logs_on_failure
	forget
}

whole() {
	local blob
	for blob in "$user_home"/cache-of-test/blobs/sha256/*; do
		[[ $(sha256sum <"$blob") == "${blob##*/}"* ]] || fail "not what its name says: $blob"
	done
	[[ -z $(find "$user_home/cache-of-test" -name '.*' -type f) ]] || fail "left over: $(find "$user_home/cache-of-test")"
}

# survives LINE...: with these faults the image arrives all the same.
survives() {
	faults "$@"
	run_ok pull "$ref"
	expect_match "^$ref@sha256:"
	refute_match 'error'
	(($(faulty_requests ' -$') < $(faulty_requests))) || fail "nothing went wrong: $(cat "$BATS_FILE_TMPDIR/faulty/log")"
	whole
	forget
}

# fails_with TEXT LINE...: with these faults it does not, and TEXT is all that is said.
fails_with() {
	local text=$1
	shift
	faults "$@"
	run_fails pull "$ref"
	expect_match "^brolga: error: pull $ref: $text"
	[[ $(grep -c . <<<"$output") == $(grep -cE '^brolga: (error|hint): ' <<<"$output") ]] || fail "$output"
	(($(grep -c 'error: ' <<<"$output") == 1)) || fail "$output"
	! as_user grep -qs bulk cache-of-test/index.json || fail "the image is in the cache"
	forget
}

@test "faults: a registry that is busy, and says for how long" {
	survives '1 429:1 /manifests/' '1 503:1 /blobs/'
	(($(faulty_requests) == 6)) || fail "$(cat "$BATS_FILE_TMPDIR/faulty/log")"
}

@test "faults: a registry that breaks down once" { survives '1 500 /v2/$' '1 502 /blobs/'; }

@test "faults: connections that end without an answer" { survives '1 drop /manifests/' '1 drop /blobs/'; }

@test "faults: a transfer that is cut off goes on where it was" {
	survives "2 cut $layer"
	(($(faulty_requests "$layer 206 ") == 2)) || fail "$(cat "$BATS_FILE_TMPDIR/faulty/log")"
}

@test "faults: wrong bytes are fetched again" { survives "1 wrong $layer" '1 wrong /blobs/'; }

@test "faults: a layer that is too short, or too long, is fetched again" {
	survives "1 short $layer"
	survives "1 long $layer"
}

@test "faults: a slow transfer" { survives "1 slow $layer"; }

@test "faults: a redirect to where the content is" { survives "0 redirect:http://$BROLGA_TEST_REGISTRY /blobs/"; }

@test "faults: a redirect to a place without TLS" {
	fails_with "registry $faulty does not speak TLS" "0 redirect:http://0.0.0.0:1 /blobs/"
	expect_match '^brolga: hint: '
}

@test "faults: a redirect that does not end" {
	fails_with "registry $faulty: stopped after 10 redirects" "0 redirect:http://$faulty /blobs/"
}

@test "faults: wrong bytes for good" { fails_with 'blob sha256:[0-9a-f]{64} is corrupt: ' '0 wrong /blobs/'; }

@test "faults: too many bytes for good" { fails_with 'blob sha256:[0-9a-f]{64} is corrupt: ' '0 long /blobs/'; }

@test "faults: a manifest that is not what its digest says" {
	fails_with 'manifest sha256:[0-9a-f]{64} is corrupt: ' '0 wrong /manifests/'
}

@test "faults: a registry that wants us to come back tomorrow" {
	fails_with "registry $faulty limits the number of requests" '0 429:86400 /blobs/'
	expect_match '^brolga: hint: '
}

@test "faults: an image that lost a layer" { fails_with 'the registry has no such image or tag' '0 404 /blobs/'; }

@test "faults: a mirror that fails for good, behind it the registry" {
	printf '[[registry]]\nname = "%s"\nmirrors = ["%s"]\n' "$BROLGA_TEST_REGISTRY" "$faulty" |
		cat "$BROLGA_CLUSTER_DIR/etc/brolga.toml" - >"$BATS_FILE_TMPDIR/mirror.toml"
	chmod 0755 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR"
	faults '0 500 /blobs/'
	run_ok as_user brolga pull --config "$BATS_FILE_TMPDIR/mirror.toml" --cache "$user_home/cache-of-test" "$BROLGA_TEST_REGISTRY/$name"
	refute_match error
	(($(faulty_requests /manifests/) == 1))
	(($(registry_requests GET /blobs/) == 2))
	whole
}
