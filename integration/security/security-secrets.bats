#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Passwords and keys are in no message, no file of measurements and no core file, and
# other processes of the same user cannot read them out of Brolga's. security-credentials,
# security-ssh and security-sync look for them in processes, logs and files.

load ../lib/helpers
load ../lib/lifecycle
load ../lib/registry
load ../lib/ssh
# shellcheck disable=SC2154 # secure, ca, ssh_image and until_go come from there

setup_file() {
	password=$(openssl rand -hex 16) # that nothing else on this machine knows
	start_secure_registry "$password"
	export secure ca password
	make_ssh_image
}

teardown_file() { stop_registries; }

setup() {
	mark_logs
	install -d -o brolga "$tools"
	cp -p "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$tools/brolga.toml"
	as_user rm -rf .docker bin asked go started
	forget
	background=
}

teardown() {
	dump_logs_on_failure
	[[ -z $background ]] || kill "$background" 2>/dev/null || true
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	cp -p "$tools/brolga.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	rm -rf "$tools" "$user_home"/.docker "${user_home:?}"/{bin,cores} "$user_home"/{asked,go,started,secret.toml}
	forget
}

# A pull that has the password, and waits: its credential helper says it, and does not end.
waiting_pull() {
	site_config "[[registry]]
name = '$secure'
ca = '$ca'"
	as_user mkdir -p bin .docker cores
	as_user tee bin/docker-credential-wait >/dev/null <<-SCRIPT
		#!/bin/sh
		printf '{"ServerURL":"%s","Username":"alice","Secret":"%s"}' $secure $password
		touch $user_home/asked
		while [ ! -e $user_home/go ]; do sleep 0.05; done
	SCRIPT
	as_user chmod 0700 bin/docker-credential-wait
	printf '{"credsStore":"wait"}' | as_user tee .docker/config.json >/dev/null
	in_background as_user bash -c "cd cores && ulimit -c unlimited && exec env GOTRACEBACK=crash PATH=$user_home/bin:/usr/bin:/bin \
		$BROLGA_CLUSTER_DIR/prefix/bin/brolga pull --config $BROLGA_CLUSTER_DIR/etc/brolga.toml --cache $user_home/cache-of-test $secure/app:1"
	retry 20 test -e "$user_home/asked" || fail "no helper was asked: $(<"$BATS_TEST_TMPDIR/background")"
	pull=$(our_programs bin/brolga pull)
}

jobs_so_far() { squeue --noheader --states=all --format=%A | sort -n | tail -n1; }

# closed PID: another process of the same user can read neither its memory nor its variables.
closed() {
	local file
	for file in mem environ maps; do
		run as_user head -c 1 "/proc/$1/$file"
		((status != 0)) || fail "$file of $(tr '\0' ' ' <"/proc/$1/cmdline") is open"
		expect_match 'Permission denied'
	done
}

@test "secrets: a password in an image's name is refused before anything is submitted, and not shown" {
	local before name
	before=$(jobs_so_far)
	name=alice:$password@$secure/app:1
	printf 'image = "%s"\n' "$name" | as_user tee secret.toml >/dev/null
	for command in srun sbatch salloc; do
		for option in "--container-image=$name" "--container-image=docker://$name" "--container-image=${name/\//#}" "--environment=$user_home/secret.toml"; do
			if [[ $command == sbatch ]]; then
				run_fails as_user sbatch "$option" --wrap true
			else
				run_fails as_user "$command" "$option" true
			fi
			expect_match "brolga: error: .*alice:\*\*\*@$secure.app:1.*: a password does not belong in a name\$"
			expect_match "brolga: hint: keep it with \"brolga login $secure\", and leave it out of the name\$"
			refute_match "$password"
		done
	done
	for verb in pull run inspect rmi verify login; do
		run_fails as_user brolga "$verb" "$name"
		refute_match "$password"
	done
	[[ $(jobs_so_far) == "$before" ]] || fail "a job was submitted"
	! grep -qs "$password" "$BROLGA_CLUSTER_DIR"/log/*.log || fail "a log has the password"
}

@test "secrets: a pull that has a password leaves no core file, and is closed to its user's processes" {
	waiting_pull
	closed "$pull"
	kill -QUIT "$pull"
	background_ends
	((status != 0))
	run find "$user_home/cores" -type f
	[[ -z $output ]] || fail "it left $output"
	refute_match "$password"
	# This machine writes core files where it may.
	if [[ $(</proc/sys/kernel/core_pattern) == core* ]]; then
		run as_user bash -c 'cd cores && ulimit -c unlimited && exec python3 -c "import os; os.abort()"'
		[[ -n $(ls "$user_home/cores") ]]
	fi
}

@test "secrets: the server that has a step's key is closed to the user's processes, and its sessions are not" {
	load_ssh_image
	in_background crun -N1 -n1 --container-image="$ssh_image" --container-ssh bash -c "ssh localhost sleep 776 & $until_go; kill %1"
	tasks_run 1
	retry 5 servers_are 1
	closed "$(servers)"
	retry 10 pgrep -u "$BROLGA_TEST_USER" -f '^sleep 776'
	run_ok as_user head -c 1 "/proc/$(pgrep -u "$BROLGA_TEST_USER" -f '^sleep 776')/environ"
	go_on
	background_ends
	expect_clean
}

@test "secrets: the file of measurements, and what a step says of itself, have none" {
	local secret
	site_config "hooks.timestamps = '$tools/times'
[[registry]]
name = '$secure'
ca = '$ca'"
	printf %s "$password" | as_user brolga login --config "$BROLGA_CONFIG" --username alice --password-stdin "$secure"
	# shellcheck disable=SC2016 # the script expands it
	printf '#!/bin/sh\necho "secret $BROLGA_STEP_SECRET" >&2\n' | as_user tee secret.toml >/dev/null
	chmod 0755 "$user_home/secret.toml"
	run_ok crun -vv -N2 -n2 --prolog="$user_home/secret.toml" --container-verbose --container-sync --container-ssh \
		--container-image="$secure/app:1" /hello
	secret=$(sed -n 's/^secret //p' <<<"$output")
	[[ $secret =~ ^[0-9a-f]{64}$ ]] || fail "$output"
	output=$(grep -v '^secret ' <<<"$output")
	refute_match "$password|$secret"
	run cat "$tools/times"
	[[ -n $output ]]
	refute_match "$password|$secret"
}
