#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A password is seen by the registry it is for, by the user's own files and
# helpers, and by nothing and nobody else.

load ../lib/helpers
load ../lib/lifecycle
load ../lib/registry

other=$BROLGA_TEST_USER-other
setup_file() {
	useradd --create-home --shell /bin/bash "$other"
	password=$(openssl rand -hex 16) # that nothing else on this machine knows
	start_secure_registry "$password"
	# As it is in files and on the wire.
	forms="$password|$(printf 'alice:%s' "$password" | base64 -w0 | tr -d =)"
	export secure ca password forms
}

teardown_file() {
	stop_registries
	userdel --remove "$other" 2>/dev/null
}

setup() {
	mark_logs
	install -d -o brolga "$tools"
	cp -p "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$tools/brolga.toml"
	site_config "cache = '{home}/cache-of-test'
[[registry]]
name = '$secure'
ca = '$ca'"
	as_user rm -rf .docker bin asked go
	forget
	background=
}

teardown() {
	dump_logs_on_failure
	[[ -z $background ]] || kill "$background" 2>/dev/null || true
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	cp -p "$tools/brolga.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	rm -rf "$tools" "$user_home"/.docker "${user_home:?}/bin" "$user_home"/{asked,go,job.out}
	forget
}

log_in() {
	printf %s "$password" | as_user env PATH="$user_home/bin:$BROLGA_CLUSTER_DIR/prefix/bin:/usr/bin:/bin" \
		brolga login --config "$BROLGA_CLUSTER_DIR/etc/brolga.toml" --username alice --password-stdin "$secure"
}

# A credential helper that waits when it is asked, while brolga has the password
# or waits for it.
waiting_helper() {
	as_user mkdir -p bin .docker
	as_user tee bin/docker-credential-wait >/dev/null <<-'SCRIPT'
		#!/bin/sh
		[ "$1" != store ] || cat >~/bin/kept
		touch ~/asked
		while [ ! -e ~/go ]; do sleep 0.05; done
		[ "$1" != get ] || cat ~/bin/kept
	SCRIPT
	as_user chmod 0700 bin/docker-credential-wait
	printf '{"credsStore":"wait"}' | as_user tee .docker/config.json >/dev/null
}

# on_display: what all processes show of themselves, but for those of the tests,
# which know the password.
on_display() {
	local proc
	for proc in /proc/[0-9]*; do
		! grep -qz '^BATS_' "$proc/environ" || continue
		tr '\0' '\n' <"$proc/cmdline"
		tr '\0' '\n' <"$proc/environ"
	done 2>/dev/null
	true # whatever ended meanwhile
}

asked() {
	retry 20 test -e "$user_home/asked" || fail "no helper was asked: $(<"$BATS_TEST_TMPDIR/background")"
	output=$(on_display)
	expect_match '^docker-credential-wait$|/docker-credential-wait$'
	refute_match "$forms"
	as_user touch go
	background_ends
	((status == 0)) || fail "$output"
	refute_match "$forms"
	as_user rm asked go
}

@test "credentials: no process shows a password, at login or in a pull" {
	waiting_helper
	in_background log_in
	asked
	run_ok as_user cat .docker/config.json
	refute_match "$forms"
	in_background as_user env PATH="$user_home/bin:$BROLGA_CLUSTER_DIR/prefix/bin:/usr/bin:/bin" \
		srun --time=5 --container-image="$secure/app:1" /hello
	asked
}

@test "credentials: no log, job, cache or store has a password" {
	run_ok log_in
	refute_match "$forms"
	# shellcheck disable=SC2046 # perhaps nothing
	run_ok crun -vv $(slurmd_debug debug2) --container-image="$secure/app:1" /hello
	expect_match 'BROLGA_IMAGE: distroless'
	refute_match "$forms"
	# On the node too.
	run_ok as_user sbatch --parsable --hold --output=job.out --container-image="$secure/app:1" --wrap true
	local job=${lines[-1]}
	forget
	run_ok scontrol show --details job "$job"
	refute_match "$forms"
	release_jobs
	retry 20 is_over "$job"
	run_ok grep -rlE "$forms" "$BROLGA_CLUSTER_DIR"/{log,spool,state,store,run} "$user_home/cache-of-test" "$user_home/job.out" || true
	[[ -z $output ]] || fail "a password is in $output"
}

is_over() { [[ -z $(squeue --noheader --jobs="$1" --states=PENDING,RUNNING,COMPLETING) ]]; }

@test "credentials: no other user can read what login keeps" {
	run_ok log_in
	[[ $(stat -c '%a %U' "$user_home/.docker") == "700 $BROLGA_TEST_USER" ]]
	[[ $(stat -c '%a %U' "$user_home/.docker/config.json") == "600 $BROLGA_TEST_USER" ]]
	chmod 0755 "$user_home" "$user_home/.docker"
	run_fails runuser -u "$other" -- cat "$user_home/.docker/config.json"
	chmod 0700 "$user_home"
	# It was readable by all: login closes it.
	as_user chmod 0644 .docker/config.json
	run_ok log_in
	[[ $(stat -c %a "$user_home/.docker/config.json") == 600 ]]
	[[ -z $(find "$user_home/.docker" -name '.brolga-*') ]]
}

@test "credentials: no error quotes a file that is broken" {
	as_user mkdir -p .docker
	for text in "{\"auths\": {\"x\": {\"auth\": \"$password\"" "{\"auths\": {\"$secure\": {\"auth\": \"$password!\"}}}" \
		"{\"auths\": {\"$secure\": \"$password\"}}" "$password"; do
		printf '%s' "$text" | as_user tee .docker/config.json >/dev/null
		run_fails crun --container-image="$secure/app:1" /hello
		expect_match "^brolga: error: .*$user_home/.docker/config.json"
		refute_match "$forms"
		[[ $(grep -c 'error: ' <<<"$output") == 1 ]] || fail "$output"
	done
}
