#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# brolga run: the options of srun, under their names and without "container-".

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images
load ../lib/run

@test "run: each option has srun's name and a short one" {
	for mounts in --mounts --container-mounts; do
		run_ok brun $mounts=/usr/share/doc/bash:/doc:ro "$BROLGA_TEST_IMAGE" sh -c 'ls /doc/copyright; touch /doc/x; true'
		expect_line /doc/copyright
		expect_match 'Read-only file system'
	done
	run_ok brun --mounts /usr/share/doc/bash:/doc "$BROLGA_TEST_IMAGE" ls /doc/copyright
	run_ok brolga run --help
	expect_match '^  --mounts=SRC'
	refute_match 'inherit|--name|--image'
}

@test "run: a relative source of a mount starts where the user is" {
	as_user mkdir -p here
	as_user touch here/file
	run_ok brun --no-mount-home --mounts=./here:/there "$BROLGA_TEST_IMAGE" ls /there
	expect_line file
	rm -r "$user_home/here"
}

@test "run: the command starts where the user is, if the container has that, else where the image says" {
	new_image
	mkdir "$image/work"
	push_image --workdir /work run-workdir
	run_ok brun "$ref" pwd
	expect_line "$user_home"
	run_ok brun --no-mount-home "$ref" pwd
	expect_line /work
	run_ok brun --workdir=/mnt "$ref" pwd
	expect_line /mnt
	run -125 brun --workdir=/missing "$ref" pwd
	expect_match '^brolga: error: enter working directory /missing: no such directory in the container'
}

@test "run: writable by default, in memory; readonly refuses" {
	run_ok brun "$BROLGA_TEST_IMAGE" sh -c 'echo x >/etc/new && rm /etc/debian_version && cat /etc/new'
	expect_line x
	run_ok brun "$BROLGA_TEST_IMAGE" sh -c 'ls /etc/new; cat /etc/debian_version' || true
	expect_match "cannot access '/etc/new'"
	run brun --readonly "$BROLGA_TEST_IMAGE" sh -c 'echo x >/etc/new'
	((status != 0))
	expect_match 'Read-only file system'
	run -125 brun --readonly --writable "$BROLGA_TEST_IMAGE" true
	expect_match '^brolga: error: --container-writable contradicts --container-readonly'
}

@test "run: with remap-root the user is root, and a package can be installed" {
	run_ok brun --remap-root "$BROLGA_TEST_IMAGE" sh -c '
		id -u; chown 5:6 /etc/hostname 2>&1; mkdir -p /p/DEBIAN /p/opt && echo hi >/p/opt/file
		printf "Package: brolga-test\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n" >/p/DEBIAN/control
		dpkg-deb --build /p /p.deb >/dev/null && dpkg -i /p.deb && cat /opt/file'
	expect_line 0
	expect_line hi
	run_ok brun --no-remap-root "$BROLGA_TEST_IMAGE" id -u
	expect_line "$(id -u "$BROLGA_TEST_USER")"
}

@test "run: what is unshared is the container's own, the rest is the host's" {
	read_all='cd /proc/self/ns; for n in net ipc uts; do echo "$n $(readlink $n)"; done'
	run_ok brun "$BROLGA_TEST_IMAGE" sh -c "$read_all"
	for ns in net ipc uts; do
		expect_line "$ns $(readlink /proc/self/ns/$ns)"
	done
	run_ok brun --unshare=net,ipc,uts,pid "$BROLGA_TEST_IMAGE" sh -c "$read_all; ls /sys/class/net /dev/shm; cat /proc/1/comm"
	for ns in net ipc uts; do
		refute_match "$(readlink /proc/self/ns/$ns)"
	done
	expect_line lo
	expect_line brolga-launch
	run -125 brun --unshare=nonsense "$BROLGA_TEST_IMAGE" true
	expect_match 'nonsense'
}

@test "run: variables say what options would, and the image only where no argument does" {
	run_ok as_user BROLGA_CONFIG="$BROLGA_CONFIG" BROLGA_CONTAINER_WORKDIR=/mnt BROLGA_CONTAINER_IMAGE="$BROLGA_TEST_REGISTRY/no/such" \
		brolga run "$BROLGA_TEST_IMAGE" pwd
	expect_line /mnt
	run_ok as_user BROLGA_CONFIG="$BROLGA_CONFIG" BROLGA_CONTAINER_IMAGE="$BROLGA_TEST_SMALL_IMAGE" brolga run
	expect_line "arg0: /hello"
	# Those that are about jobs are for srun.
	run_ok as_user BROLGA_CONFIG="$BROLGA_CONFIG" BROLGA_CONTAINER_INHERIT=1 BROLGA_CONTAINER_NAME=x brolga run "$BROLGA_TEST_IMAGE" true
	run -125 as_user BROLGA_CONFIG="$BROLGA_CONFIG" BROLGA_CONTAINER_WRITABLE=perhaps brolga run "$BROLGA_TEST_IMAGE" true
	expect_one_error "BROLGA_CONTAINER_WRITABLE=perhaps: want 1 or 0"
}

@test "run: what needs a job is refused by name, all of it at once" {
	run -125 brun --inherit --container-name=x --ssh --sync --save=x.sqsh "$BROLGA_TEST_IMAGE" true
	expect_one_error "$(printf "; --container-%s means nothing without Slurm" inherit name ssh sync save | cut -c3-)"
	expect_line "brolga: hint: leave it out, or use srun"
}

@test "run: an environment definition file names the image, or leaves it to the argument" {
	as_user mkdir -p .edf
	printf 'image = "%s"\nworkdir = "/mnt"\n[env]\nFROM_FILE = "yes"\n' "$BROLGA_TEST_IMAGE" >"$user_home/.edf/run.toml"
	printf 'workdir = "/srv"\n' >"$user_home/.edf/part.toml"
	chmod -R a+rX "$user_home/.edf"
	run_ok brun --environment=run sh -c 'pwd; echo "$FROM_FILE"'
	expect_line /mnt
	expect_line yes
	run_ok brun --environment=run --workdir=/opt sh -c pwd
	expect_line /opt
	run_ok brun --environment=part "$BROLGA_TEST_IMAGE" pwd
	expect_line /srv
	run -125 brun --environment=missing sh
	expect_match '^brolga: error: .*missing'
	rm -r "$user_home/.edf"
}

@test "run: dry-run prints request and specification, and runs nothing" {
	run_ok brun --dry-run --unshare=net "$BROLGA_TEST_IMAGE" touch here-it-ran
	jq -e '.spec.linux.namespaces | map(.type) == ["mount", "network"]' <<<"$output" >/dev/null || fail "$output"
	[[ ! -e $user_home/here-it-ran ]]
}

@test "run: a device works where the user may open it on the host" {
	run_ok brun --mounts=/dev/loop-control "$BROLGA_TEST_IMAGE" sh -c 'ls -l /dev/loop-control /dev/fuse; head -c1 /dev/urandom | wc -c; cat /dev/loop-control; true'
	expect_line 1
	expect_match '^crw.* /dev/loop-control'
	expect_match 'loop-control: Permission denied'
}

@test "run: verbose says what was done, quiet only what went wrong" {
	as_user brolga rmi --force "$BROLGA_TEST_SMALL_IMAGE" --config "$BROLGA_CONFIG" >/dev/null 2>&1 || true
	run --separate-stderr brun --quiet "$BROLGA_TEST_SMALL_IMAGE"
	[[ -z $stderr ]] || fail "$stderr"
	run_ok brun --verbose "$BROLGA_TEST_SMALL_IMAGE"
	expect_match '^brolga: container ready in [0-9.]+ ms: '
}
