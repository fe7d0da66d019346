#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Credentials: where they are found, login and logout, against a registry with
# TLS by an authority that only the site's configuration knows, and htpasswd.

load ../lib/helpers
load ../lib/images
load ../lib/registry

setup_file() {
	start_secure_registry
	export secure ca
}

teardown_file() { stop_registries; }

setup() {
	mark_logs
	site_config "[[registry]]
name = '$secure'
ca = '$ca'"
	given
	forget
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	as_user brolga rmi "$secure/app:1" 2>/dev/null || true
	rm -rf "$user_home"/.docker "$user_home"/.config "${user_home:?}/bin" "$user_home/auth.json"
	forget
}

login() { as_user env "${with_env[@]}" brolga login --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$@"; }

logged_in() { printf '%s\n' "${1:-wonderland}" | login --username alice --password-stdin "$secure"; }

pull_works() {
	run_ok as_user env "${with_env[@]}" brolga pull --quiet --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" --cache "$user_home/cache-of-test" "${1:-$secure/app:1}"
	forget
}

pull_denied() {
	run_fails pull --quiet "$secure/app:1"
	expect_match "^brolga: error: pull $secure/app:1: the registry wants other credentials, or has no such image$"
	expect_match "^brolga: hint: log in with \"brolga login $secure\""
}

@test "login: what it keeps is used by srun, and logout removes it" {
	pull_denied
	run_ok logged_in
	expect_line "logged in to $secure as alice; the password is kept in $user_home/.docker/config.json"
	[[ $(stat -c '%a %U' "$user_home/.docker/config.json") == "600 $BROLGA_TEST_USER" ]]
	run_ok crun --container-image="$secure/app:1" /hello
	expect_line 'BROLGA_IMAGE: distroless'
	run_ok crun --container-image="alice@$secure#app:1" /hello
	run_ok as_user brolga logout "$secure"
	expect_line "removed the credentials for $secure from $user_home/.docker/config.json"
	run_ok as_user brolga logout "$secure"
	expect_line "there were no credentials for $secure"
	pull_denied
}

@test "login: a wrong password is refused and changes nothing" {
	as_user mkdir .docker
	printf '{"auths":{"r.example":{"auth":"YTpi"}}}' | as_user tee .docker/config.json >/dev/null
	run_fails logged_in looking-glass
	[[ $output == "brolga: error: log in to $secure: the registry does not accept this user and password" ]] || fail "$output"
	[[ $(as_user cat .docker/config.json) == '{"auths":{"r.example":{"auth":"YTpi"}}}' ]]
	run_ok logged_in
	[[ $(as_user jq -c '.auths | keys' .docker/config.json) == "[\"$secure\",\"r.example\"]" ]]
}

@test "login: on a terminal the password does not show" {
	run_ok as_user python3 - "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$secure" <<-'PYTHON'
		import os, pty, sys, time
		pid, fd = pty.fork()
		if pid == 0:
		    os.execvp("brolga", ["brolga", "login", "--config", sys.argv[1], sys.argv[2]])
		seen = b""
		def until(text):
		    global seen
		    while text not in seen:
		        seen += os.read(fd, 1000)
		until(b"username: ")
		os.write(fd, b"alice\n")
		until(b"password: ")
		os.write(fd, b"wonderland\n")
		until(b"logged in")
		print(seen.decode().replace("\r", ""))
	PYTHON
	expect_line 'username: alice'
	expect_line 'password: '
	refute_match wonderland
	pull_works
}

@test "login: what cannot be asked is an error" {
	run_fails login --username alice "$secure"
	expect_line 'brolga: error: login: there is no terminal to ask for the password on'
	expect_line 'brolga: hint: use --username and --password-stdin'
	run_fails login --password-stdin "$secure"
	expect_match 'error: login: --password-stdin needs --username$'
	run_fails login --username alice --password=wonderland "$secure"
	refute_match wonderland
	run_fails login "$secure/app"
	expect_match 'error: ".*/app" is not a registry$'
}

@test "credentials: podman's files, by variable and in their usual place" {
	run_ok logged_in
	as_user mkdir -p .config/containers
	as_user mv .docker/config.json .config/containers/auth.json
	pull_works
	as_user mv .config/containers/auth.json auth.json
	given REGISTRY_AUTH_FILE="$user_home/auth.json"
	pull_works
	run_ok as_user env "${with_env[@]}" srun --container-image="$secure/app:1" /hello
	given
	pull_denied
}

@test "credentials: enroot's file, with a variable, a command, and two users" {
	as_user mkdir -p .config/enroot
	printf 'machine 0.0.0.0 login bob password x\nmachine 0.0.0.0 login alice password $(echo won$PART)\n' |
		as_user tee .config/enroot/.credentials >/dev/null
	as_user chmod 0600 .config/enroot/.credentials
	given PART=derland
	pull_works "alice@$secure#app:1"
	pull_denied
	run_fails pull "carol@$secure#app:1"
	expect_match "^brolga: error: pull $secure/app:1: no credentials of user \"carol\" for registry $secure$"
	expect_match "^brolga: hint: brolga login --username carol $secure$"
}

@test "credentials: the user who is named counts on the node that pulls, too" {
	restore_site_config
	site_config "cache = '{home}/cache-of-test'
[[registry]]
name = '$secure'
ca = '$ca'"
	as_user mkdir -p .config/enroot
	printf 'machine 0.0.0.0 login bob password x\nmachine 0.0.0.0 login alice password wonderland\n' |
		as_user tee .config/enroot/.credentials >/dev/null
	run_ok as_user sbatch --parsable --hold --output=job.out --container-image="alice@$secure#app:1" --wrap true
	local job=${lines[-1]}
	forget
	scontrol release "$job"
	retry 30 job_ended "$job"
	run_ok as_user ls cache-of-test/index.json # it was pulled again
	run as_user cat job.out
	refute_match 'brolga: error: '
	as_user rm job.out
}

@test "credentials: a helper keeps them, and a missing one is named when it is needed" {
	as_user mkdir bin .docker
	as_user tee bin/docker-credential-test >/dev/null <<-'SCRIPT'
		#!/bin/sh
		case $1 in
		store) cat >~/bin/kept ;;
		get) cat ~/bin/kept 2>/dev/null || { echo credentials not found in native keychain; exit 1; } ;;
		erase) rm ~/bin/kept ;;
		esac
	SCRIPT
	as_user chmod 0700 bin/docker-credential-test
	printf '{"credsStore":"test"}' | as_user tee .docker/config.json >/dev/null
	given PATH="$user_home/bin:$BROLGA_CLUSTER_DIR/prefix/bin:/usr/bin:/bin"
	run_ok logged_in
	expect_line "logged in to $secure as alice; the password is kept in the credential helper docker-credential-test"
	run_ok as_user cat .docker/config.json
	refute_match 'wonderland|YWxpY2U6'
	pull_works
	run_fails pull "$secure/app:1" # without it in PATH
	expect_match "^brolga: hint: credential helper docker-credential-test, named in $user_home/.docker/config.json: there is no such program in PATH$"
	run_ok as_user env "${with_env[@]}" brolga pull --quiet "$BROLGA_TEST_SMALL_IMAGE"
}

@test "registry: an authority that nobody knows" {
	restore_site_config
	run_fails pull "$secure/app:1"
	expect_match "^brolga: error: pull $secure/app:1: registry $secure cannot be trusted: x509: certificate signed by unknown authority$"
	expect_match '^brolga: hint: .*ca for the registry'
}

@test "registry: the proxy that the environment names is used" {
	run_ok logged_in
	given https_proxy=http://127.0.0.1:1
	run_fails as_user env "${with_env[@]}" srun --container-image="$secure/app:1" /hello
	expect_match "^brolga: error: pull $secure/app:1: registry $secure cannot be reached through the proxy: .*connection refused$"
	expect_match '^brolga: hint: check https_proxy, http_proxy and no_proxy$'
	given https_proxy=http://127.0.0.1:1 no_proxy=0.0.0.0
	pull_works
}

@test "registry: a blocked one is refused before anything is submitted, with the site's words" {
	run_ok as_user brolga pull --quiet "$BROLGA_TEST_SMALL_IMAGE"
	restore_site_config
	site_config "[[registry]]
name = '$BROLGA_TEST_REGISTRY'
blocked = 'use another one'"
	refused "--container-image: registry $BROLGA_TEST_REGISTRY is blocked on this cluster" --container-image="$BROLGA_TEST_SMALL_IMAGE"
	expect_line 'brolga: hint: use another one'
	run_fails pull "$BROLGA_TEST_SMALL_IMAGE"
	expect_match "error: pull $BROLGA_TEST_SMALL_IMAGE: registry $BROLGA_TEST_REGISTRY is blocked on this cluster$"
}

@test "registry: of an index the platform that is named, or an error that lists them" {
	new_image
	local arch refs=()
	for arch in arm64 s390x; do
		refs+=("$(mkimage --arch "$arch" "multi/$arch:1" "$image")")
	done
	jq -n '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: $ARGS.positional}' \
		--jsonargs "$(described arm64 "${refs[0]}")" "$(described s390x "${refs[1]}")" >"$BATS_TEST_TMPDIR/index.json"
	for arch in arm64 s390x; do # an index is put beside its manifests
		skopeo --insecure-policy copy --quiet --src-tls-verify=false --dest-tls-verify=false \
			"docker://$BROLGA_TEST_REGISTRY/multi/$arch:1" "docker://$BROLGA_TEST_REGISTRY/multi/all:$arch"
	done
	curl -sSf -X PUT -H 'Content-Type: application/vnd.oci.image.index.v1+json' --data-binary "@$BATS_TEST_TMPDIR/index.json" \
		"http://$BROLGA_TEST_REGISTRY/v2/multi/all/manifests/1"
	run_ok pull --quiet --platform linux/s390x "$BROLGA_TEST_REGISTRY/multi/all:1"
	run_ok pull --quiet --platform aarch64 "$BROLGA_TEST_REGISTRY/multi/all:1"
	run_fails pull --platform ppc64le "$BROLGA_TEST_REGISTRY/multi/all:1"
	expect_match 'no image for this platform, linux/ppc64le; there is linux/arm64, linux/s390x$'
	refused "pull $BROLGA_TEST_REGISTRY/multi/all:1: no image for this platform, linux/amd64; there is linux/arm64, linux/s390x" \
		--container-image="$BROLGA_TEST_REGISTRY/multi/all:1"
}

# described ARCH REF: its descriptor in an index.
described() {
	skopeo inspect --tls-verify=false --raw "docker://$2" >"$BATS_TEST_TMPDIR/manifest"
	jq -nc --arg arch "$1" --arg digest "sha256:$(sha256sum <"$BATS_TEST_TMPDIR/manifest" | cut -d' ' -f1)" \
		--argjson size "$(stat -c %s "$BATS_TEST_TMPDIR/manifest")" \
		'{mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $digest, size: $size, platform: {os: "linux", architecture: $arch}}'
}
