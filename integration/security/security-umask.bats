#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Files that Brolga makes for a user are at most as open as the umask of the user allows.
# Caches and credentials are always closed.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	as_user rm -rf made
	as_user mkdir made
	given
}

prepare() {
	new_image
	echo token >"$image/token"
	chmod 0666 "$image/token"
	push_image "umask/$BATS_TEST_NUMBER:1"
	in_image="--container-image=$ref"
}

# with_umask OCTAL COMMAND: as the user, in a shell.
with_umask() { as_user timeout 120 sh -c "umask $1; $2"; }

mode() { stat -c '%U %a' "$user_home/made/$1"; }

expect_mode() { [[ $(mode "$1") == "$BROLGA_TEST_USER $2" ]] || fail "$1: $(mode "$1"); want $2"; }

@test "umask: a saved container is as closed as the step's umask asks" {
	prepare
	run_ok with_umask 077 "srun $in_image --container-save=made/srun.sqsh /bin/sh -c 'umask 022; echo secret >/token'"
	expect_mode srun.sqsh 600
	run_fails runuser -u nobody -- cat "$user_home/made/srun.sqsh"
	run_ok with_umask 027 "srun $in_image --container-remap-root --container-save=made/root.sqsh /bin/touch /token"
	expect_mode root.sqsh 640
	run_ok with_umask 077 "salloc --quiet -N1 srun $in_image --container-save=made/salloc.sqsh /bin/touch /token"
	expect_mode salloc.sqsh 600
	run_ok with_umask 077 "sbatch --quiet --wait --output=/dev/null $in_image --container-save=made/sbatch.sqsh --wrap true"
	expect_mode sbatch.sqsh 600
	run_ok with_umask 022 "srun $in_image --container-save=made/open.sqsh /bin/touch /token"
	expect_mode open.sqsh 644
	[[ $(unsquashfs -cat "$user_home/made/srun.sqsh" token) == secret ]]
	expect_no_leftovers
}

@test "umask: a saved container is closed before it is complete" {
	prepare
	cat >"$user_home/tar2sqfs" <<-'SCRIPT'
		#!/bin/bash
		echo begun >"${!#}"
		exec cat >/dev/null
	SCRIPT
	chmod 0755 "$user_home/tar2sqfs"
	chmod o+x "$user_home"
	run_ok crun "$in_image" /bin/sh -c true # the conversion is done with the real one
	site_config "tar2sqfs = \"$user_home/tar2sqfs\""
	run_ok with_umask 077 "srun $in_image --container-save=made/x.sqsh /bin/touch /token"
	expect_mode x.sqsh 600
}

@test "umask: what brolga export writes is as closed as the umask asks" {
	prepare
	for umask in 077:600:700 022:644:755; do
		IFS=: read -r umask file dir <<<"$umask"
		for target in "file-$umask.sqsh" "oci-archive:archive-$umask.tar" "oci:layout-$umask"; do
			run_ok with_umask "$umask" "cd made && brolga export $ref $target"
		done
		expect_mode "file-$umask.sqsh" "$file"
		expect_mode "archive-$umask.tar" "$file"
		expect_mode "layout-$umask" "$dir"
		expect_mode "layout-$umask/index.json" "$file"
	done
}

@test "umask: cache, credentials and stores of your own are closed whatever it says" {
	prepare
	run_ok with_umask 0 "HOME=\$PWD/made/home XDG_CACHE_HOME=; mkdir made/home; export HOME
		echo wonderland | brolga login --username alice --password-stdin $BROLGA_TEST_PRIVATE_REGISTRY"
	expect_mode home/.docker 700
	expect_mode home/.docker/config.json 600
	# The first line comes before the tables.
	{ echo "cache = \"{home}/made/cache\"" && grep -v '^cache ' "$BROLGA_CLUSTER_DIR/etc/brolga.toml"; } >"$user_home/made/brolga.toml"
	run_ok with_umask 0 "brolga run --config $user_home/made/brolga.toml $ref /bin/cat /token"
	expect_match token
	run find "$user_home/made/cache" -maxdepth 1 -perm /077
	[[ -z $output ]] || fail "others may reach: $output"
	[[ $(stat -c %a "$user_home/made/cache") == 700 ]]
}
