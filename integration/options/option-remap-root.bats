#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-remap-root and --no-container-remap-root

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
	root=("${in_image[@]}" --container-remap-root)
	given
}

@test "remap-root: you are root inside and yourself outside" {
	run_ok crun "${root[@]}" sh -c 'id -u; id -g; whoami; cat /proc/self/uid_map; touch ~/made; stat -c %u ~/made'
	expect_line 0
	expect_line root
	expect_match "^ +0 +$(id -u "$BROLGA_TEST_USER") +1$"
	[[ $(stat -c %U "$user_home/made") == "$BROLGA_TEST_USER" ]]
	rm "$user_home/made"
}

@test "remap-root: without it you are yourself" {
	run_ok crun "${in_image[@]}" sh -c 'id -u; grep Seccomp: /proc/self/status'
	expect_line "$(id -u "$BROLGA_TEST_USER")"
	expect_match 'Seccomp:.0'
}

@test "remap-root: the image's files are yours to change, and the image stays as it is" {
	run_ok crun "${root[@]}" sh -c 'stat -c %u /etc/shells /usr; echo x >/usr/bin/new; chmod 755 /usr/bin/new; rm /etc/debian_version; mkdir /opt/d; ls /usr/bin/new'
	expect_line /usr/bin/new
	[[ $(grep -cx 0 <<<"$output") == 2 ]] || fail "$output"
	run_ok crun "${root[@]}" sh -c 'ls /usr/bin/new /etc/debian_version || :'
	expect_line /etc/debian_version
	expect_match "/usr/bin/new.: No such file"
}

@test "remap-root: a package can be installed" {
	mkdir -p "$BATS_TEST_TMPDIR/p/DEBIAN" "$BATS_TEST_TMPDIR/p/usr/bin"
	printf 'Package: brolga-test\nVersion: 1\nArchitecture: all\nMaintainer: t <t@t>\nDescription: t\n' >"$BATS_TEST_TMPDIR/p/DEBIAN/control"
	printf '#!/bin/sh\nchgrp shadow /usr/bin/brolga-test && chown daemon:daemon /usr/bin/brolga-test\n' >"$BATS_TEST_TMPDIR/p/DEBIAN/postinst"
	printf '#!/bin/sh\necho installed\n' >"$BATS_TEST_TMPDIR/p/usr/bin/brolga-test"
	chmod 0755 "$BATS_TEST_TMPDIR/p/DEBIAN/postinst" "$BATS_TEST_TMPDIR/p/usr/bin/brolga-test"
	dpkg-deb --root-owner-group --build "$BATS_TEST_TMPDIR/p" "$user_home/brolga-test.deb" >/dev/null
	run_ok crun "${root[@]}" sh -c 'dpkg -i ~/brolga-test.deb >/dev/null && brolga-test'
	rm "$user_home/brolga-test.deb"
	expect_line installed
}

@test "remap-root: nothing is gained on the host" {
	install -o root -m 0600 /dev/null "$user_home/roots"
	install -d -o root -m 0755 "$user_home/roots.d"
	run crun "${root[@]}" sh -c '
		cat ~/roots; echo x >~/roots.d/x; chmod 777 ~/roots.d
		mount -t tmpfs x /mnt; unshare --mount true; hostname x; mknod /opt/null c 1 3
		grep -E "CapBnd|NoNew" /proc/self/status'
	rm -r "$user_home/roots" "$user_home/roots.d"
	expect_match 'roots: Permission denied'
	expect_match 'roots.d/x: Permission denied'
	expect_match "changing permissions of .*roots.d': Operation not permitted"
	expect_match 'mount: /mnt: permission denied'
	expect_match 'unshare failed: Operation not permitted'
	expect_match 'mknod: /opt/null: Operation not permitted'
	expect_match 'CapBnd:.00000000800404fb'
	expect_match 'NoNewPrivs:.1'
}

@test "remap-root: a setuid program of its own makes nobody root outside" {
	run_ok crun "${root[@]}" sh -c 'cp /bin/sh ~/sh; chown root ~/sh; chmod 4755 ~/sh'
	[[ $(stat -c '%U' "$user_home/sh") == "$BROLGA_TEST_USER" ]]
	rm "$user_home/sh"
}

@test "remap-root: it goes with namespaces, the entrypoint, several tasks and a read-only root" {
	run_ok crun -n2 "${root[@]}" --container-unshare=net,ipc,uts,pid --container-entrypoint --container-readonly \
		sh -c 'id -u; cat /proc/1/comm; touch /x || :'
	[[ $(grep -cx 0 <<<"$output") == 2 ]] || fail "$output"
	expect_match 'Read-only file system'
	expect_no_leftovers
}

@test "remap-root: the site decides, then the variable, then the option" {
	site_config $'[container]\nremap_root = true'
	run_ok crun "${in_image[@]}" id -u
	[[ $output == 0 ]] || fail "$output"
	run_ok as_user env BROLGA_CONTAINER_REMAP_ROOT=0 srun "${in_image[@]}" id -u
	[[ $output != 0 ]] || fail "$output"
	run_ok crun "${in_image[@]}" --no-container-remap-root id -u
	[[ $output != 0 ]] || fail "$output"
}

@test "remap-root: a contradiction is found before anything is submitted, and root is refused" {
	refused '--no-container-remap-root contradicts --container-remap-root: give one of them' "${root[@]}" --no-container-remap-root
	site_config $'[container]\nallow_root = true'
	run_fails srun "${root[@]}" true
	expect_one_error '--container-remap-root: user root is root already'
}
