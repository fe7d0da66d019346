#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A file that a user names may be anything: a FIFO that nobody writes to, a device
# without an end, a socket, a directory, closed, huge. Each of them is one line at
# once, nothing waits and nothing is submitted.

load ../lib/helpers
load ../lib/images
load ../lib/registry

setup_file() {
	as_user rm -rf odd
	as_user mkdir odd odd/dir
	as_user mkfifo odd/fifo
	as_user python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("odd/socket")'
	as_user ln -s /dev/zero odd/device
	as_user ln -s loop odd/loop
	as_user sh -c ': >odd/closed; chmod 0 odd/closed'
	as_user truncate --size=1T odd/huge
	odd=$user_home/odd
	export odd
}

teardown_file() { rm -rf "$user_home/odd"; }

setup() {
	mark_logs
	given
}

teardown() {
	dump_logs_on_failure
	rm -rf "$user_home"/.config/{enroot,containers} "$user_home/.docker"
	nodes_idle
}

kinds=(fifo socket device dir loop closed huge)

# reason_of KIND: a regular expression for the error.
reason_of() {
	case $1 in
	loop) echo 'too many levels of symbolic links' ;;
	closed) echo 'permission denied' ;;
	huge) echo 'too large: the limit is [0-9]+ MiB' ;;
	*) echo 'not a regular file' ;;
	esac
}

# refused_at_once REGEX COMMAND...: one error that matches, though SIGTERM may do nothing.
refused_at_once() {
	local text=$1
	shift
	run_fails as_user env "${with_env[@]}" BROLGA_CONFIG="$BROLGA_CONFIG" timeout --signal=KILL 60 "$@"
	((status != 137)) || fail "it hangs: $*"
	expect_match "brolga: error: $text"
	[[ $(grep -c 'brolga: error: ' <<<"$output") == 1 ]] || fail "more than one error: $output"
}

@test "inputs: an environment definition that is no regular file" {
	local kind before reason
	before=$(last_job)
	for kind in "${kinds[@]}"; do
		reason="read environment definition $odd/$kind: .*$(reason_of "$kind")"
		refused_at_once "$reason" srun --environment="$odd/$kind" true
		refused_at_once "$reason" sbatch --environment="$odd/$kind" --wrap true
		refused_at_once "$reason" salloc --environment="$odd/$kind" true
		refused_at_once "$reason" brolga run --environment="$odd/$kind" true
	done
	printf 'base_environment = "%s"\n' "$odd/fifo" | as_user tee odd/based.toml >/dev/null
	refused_at_once "read environment definition $odd/fifo, named in $odd/based.toml: .*not a regular file" \
		srun --environment="$odd/based.toml" true
	as_user ln -sf fifo odd/name.toml
	given EDF_PATH="$odd" BROLGA_ENVIRONMENT=name
	refused_at_once "read environment definition name: .*not a regular file" srun true
	[[ $(last_job) == "$before" ]] || fail "a job was submitted"
}

@test "inputs: an image in a file that is no regular file" {
	local kind name before
	before=$(last_job)
	for kind in fifo socket device dir loop closed huge; do
		for name in "oci-archive:$odd/$kind" "docker-archive:$odd/$kind" "oci:$odd/$kind" "$odd/$kind.sqsh"; do
			[[ $name != *.sqsh ]] || as_user ln -sfn "$kind" "odd/$kind.sqsh"
			refused_at_once ".*$odd/$kind" srun --container-image="$name" true
			refused_at_once ".*$odd/$kind" brolga run "$name" true
		done
		[[ $kind == dir ]] || refused_at_once ".*$odd/$kind" srun --container-image="dir:$odd/$kind" true
		refused_at_once ".*$odd/$kind" brolga load "oci-archive:$odd/$kind"
	done
	# Files of an image layout.
	as_user mkdir -p odd/layout/blobs/sha256
	for kind in "${kinds[@]}"; do
		as_user rm -f odd/layout/oci-layout
		as_user ln -sfn "../$kind" odd/layout/index.json
		printf '{"imageLayoutVersion":"1.0.0"}' | as_user tee odd/layout/oci-layout >/dev/null
		refused_at_once ".*$odd/layout" srun --container-image="oci:$odd/layout" true
		printf '{"manifests":[]}' | as_user sh -c 'rm odd/layout/index.json; cat >odd/layout/index.json'
		as_user ln -sfn "../$kind" odd/layout/oci-layout
		refused_at_once ".*$odd/layout" srun --container-image="oci:$odd/layout" true
	done
	[[ $(last_job) == "$before" ]] || fail "a job was submitted"
}

# private_refused REGEX: a pull that needs credentials fails with that.
private_refused() {
	refused_at_once "$1" srun --container-image="$BROLGA_TEST_PRIVATE_IMAGE" true
	refused_at_once "$1" brolga pull --quiet "$BROLGA_TEST_PRIVATE_IMAGE"
}

@test "inputs: a file with credentials that is no regular file" {
	local kind reason
	for kind in "${kinds[@]}"; do
		reason="(pull .*: )?read credentials: .*$(reason_of "$kind")"
		given REGISTRY_AUTH_FILE="$odd/$kind"
		private_refused "$reason"
		refused_at_once "$reason" sh -c "echo ${BROLGA_TEST_PRIVATE_LOGIN#*:} | brolga login --username ${BROLGA_TEST_PRIVATE_LOGIN%:*} --password-stdin $BROLGA_TEST_PRIVATE_REGISTRY"
		given
		for file in .docker/config.json .config/containers/auth.json .config/enroot/.credentials; do
			as_user mkdir -p "${file%/*}"
			as_user ln -s "$odd/$kind" "$file"
			private_refused "$reason"
			rm "$user_home/$file"
		done
	done
	[[ -p $odd/fifo && -S $odd/socket && -d $odd/dir && $(stat -c %s "$odd/huge") == $((1 << 40)) ]] || fail "a file was replaced"
	# Some name it to say that there are none.
	given REGISTRY_AUTH_FILE=/dev/null
	private_refused '.*unauthorized|.*not allowed|.*needs? .*credentials|.*login'
}

@test "inputs: a configuration that is no regular file" {
	local kind
	for kind in "${kinds[@]}"; do
		refused_at_once "read site configuration: .*$(reason_of "$kind")" brolga images --config "$odd/$kind"
	done
}

@test "inputs: a credential helper gains no privilege by a setuid program" {
	as_user mkdir -p odd/bin .docker
	install -m 4755 /usr/bin/cat "$odd/bin/setuid-cat"
	install -m 0600 /dev/null "$odd/bin/secret"
	echo secret >"$odd/bin/secret"
	as_user tee odd/bin/docker-credential-odd >/dev/null <<-SCRIPT
		#!/bin/sh
		{ grep NoNewPrivs /proc/self/status; $odd/bin/setuid-cat $odd/bin/secret; } >>$odd/bin/said 2>&1
		echo credentials not found in native keychain
		exit 1
	SCRIPT
	as_user chmod 0755 odd/bin/docker-credential-odd
	printf '{"credsStore":"odd"}' | as_user tee .docker/config.json >/dev/null
	# shellcheck disable=SC2016 # for the shell of the pull
	as_user mkdir -p .config/enroot
	printf 'machine %s login alice password $(grep NoNewPrivs /proc/self/status >>%s; %s %s >>%s 2>&1)\n' \
		"$BROLGA_TEST_PRIVATE_REGISTRY" "$odd/bin/said" "$odd/bin/setuid-cat" "$odd/bin/secret" "$odd/bin/said" |
		install -o "$BROLGA_TEST_USER" -m 0600 /dev/stdin "$user_home/.config/enroot/.credentials"
	given PATH="$odd/bin:$BROLGA_CLUSTER_DIR/prefix/bin:/usr/bin:/bin"
	run_fails as_user env "${with_env[@]}" brolga pull --quiet "$BROLGA_TEST_PRIVATE_IMAGE"
	output=$(<"$odd/bin/said")
	[[ $(grep -c 'NoNewPrivs:.1$' <<<"$output") == 2 ]] || fail "$output"
	refute_match '^secret$|NoNewPrivs:.0'
}
