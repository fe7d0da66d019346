#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# What the programs can reach that read files which users wrote. Here they are programs
# that try what one would do that an image has taken over, and tell what they could do.

load ../lib/helpers
load ../lib/images
load ../lib/lifecycle

setup_file() {
	export BROLGA_TEST_TREE=$BATS_FILE_TMPDIR/tree
	mkdir "$BROLGA_TEST_TREE"
	touch "$BROLGA_TEST_TREE/file"
}

# probe NAME CODE: a program in place of NAME, which runs the code with these helpers and
# ends with "could: ..." as its message.
probe() {
	cat >"$tools/$1" <<-SCRIPT
		#!/usr/bin/python3
		import ctypes, os, signal, socket, sys
		could = []
		def attempt(name, f):
		    try:
		        f()
		        could.append(name)
		    except OSError:
		        pass
		libc = ctypes.CDLL(None, use_errno=True)
		def call(*args):
		    if libc.syscall(*args) < 0:
		        raise OSError(ctypes.get_errno(), "")
		def connect():
		    host, port = "$BROLGA_TEST_REGISTRY".split(":")
		    socket.create_connection((host, int(port)), 5)
		def common():
		    attempt("read-passwd", lambda: open("/etc/passwd"))
		    attempt("read-process", lambda: open("/proc/1/status"))
		    attempt("make-in-tmp", lambda: open("/tmp/sandbox-test.$$", "w"))
		    attempt("connect", connect)
		    attempt("local-socket", lambda: socket.socket(socket.AF_UNIX))
		    attempt("new-user-namespace", lambda: os.unshare(0x10000000) if hasattr(os, "unshare") else call(272, 0x10000000))
		    attempt("keyring", lambda: call(250, 0, -3, 1))
		    attempt("trace-parent", lambda: call(101, 16, os.getppid(), 0, 0))
		    attempt("signal-parent", lambda: os.kill(os.getppid(), 0))
	SCRIPT
	cat >>"$tools/$1"
	printf 'print("could: " + " ".join(could or ["nothing"]), file=sys.stderr)\nsys.exit(1)\n' >>"$tools/$1"
	chmod 0755 "$tools" "$tools/$1"
}

# in_front LINE...: settings in front of all tables.
in_front() {
	local config=$BROLGA_CLUSTER_DIR/etc/brolga.toml
	printf '%s\n' "$@" | cat - "$config" >"$tools/config.new"
	cat "$tools/config.new" >"$config"
}

# another_image: $another is one in the store, which a conversion must not reach.
another_image() {
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" true # there is a store then
	another=$BROLGA_CLUSTER_DIR/store/sha256/$(printf '%064d' 0).squashfs
	install -o brolga -m 0600 /dev/null "$another"
	others="\
attempt('read-another-image', lambda: open('$another', 'rb'))
attempt('write-another-image', lambda: open('$another', 'r+b'))
attempt('make-file-in-store', lambda: open('$another.new', 'w'))
attempt('remove-another-image', lambda: os.rename('$another', '$another.gone'))
attempt('list-store', lambda: os.listdir('${another%/*}'))"
}

# The parent of tar2sqfs is brolga squash, which is in the same sandbox.
could() {
	sed -n 's/.*could: \([^)]*\) (exit status 1)$/\1/p; s/.*could: \(.*\)$/\1/p' <<<"$output" | head -n 1 | tr ' ' '\n' | grep -v '^signal-parent$' | tr '\n' ' '
}

expect_could() { [[ $(could) == "$1 " ]] || fail "it could: $(could); want $1"$'\n'"$output"; }

teardown() {
	rm -f "${another:-/none}"* "/tmp/sandbox-test.$$"
	as_user rm -rf secret outside sandbox.sqsh saved
	dump_logs_on_failure
	fast_registry
	[[ -z $background ]] || kill "$background" 2>/dev/null || true
	put "$tools/brolga.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	[[ ! -e $tools/proxy.pid ]] || kill "$(<"$tools/proxy.pid")" || true
	rm -rf "$tools"
}

users_squashfs() {
	mksquashfs "$BROLGA_TEST_TREE" "$BATS_TEST_TMPDIR/sandbox.sqsh" -quiet -no-progress >/dev/null
	install -o "$BROLGA_TEST_USER" "$BATS_TEST_TMPDIR/sandbox.sqsh" "$user_home/sandbox.sqsh"
}

users_secret() { as_user sh -c 'umask 077; echo secret >secret'; }

@test "sandbox: a conversion can write its own draft and reach no other image, file, process or network" {
	ref=$(fresh_image)
	another_image
	probe tar2sqfs <<-SCRIPT
		common()
		$others
		attempt("write-draft", lambda: open(sys.argv[-1], "r+b"))
		attempt("run-program", lambda: os.posix_spawn("/usr/bin/true", ["true"], {}))
	SCRIPT
	in_front "tar2sqfs = \"$tools/tar2sqfs\""
	run_fails crun --container-image="$ref" true
	expect_could 'write-draft run-program'
	expect_match 'brolga: error: convert .*: tar2sqfs: could: '
	[[ -e $another ]]
	expect_clean
}

@test "sandbox: what unpacks a user's squashfs can read that file and nothing else" {
	users_squashfs
	another_image
	probe sqfs2tar <<-SCRIPT
		common()
		$others
		attempt("read-squashfs", lambda: open(sys.argv[-1], "rb").read(4) == b"hsqs" or os.stat("/none"))
	SCRIPT
	in_front "sqfs2tar = \"$tools/sqfs2tar\"" 'user_squashfs = "convert"'
	run_fails crun --container-image="$user_home/sandbox.sqsh" true
	expect_could 'read-squashfs'
	[[ -e $another ]]
	expect_clean
}

@test "sandbox: what a conversion leaves running is dead before the image is published" {
	ref=$(fresh_image)
	cat >"$tools/tar2sqfs" <<-SCRIPT
		#!/bin/bash
		setsid bash -c 'exec 7<>"\$0"; exec sleep 600.4711' "\${!#}" >/dev/null 2>&1 </dev/null &
		exec /usr/bin/tar2sqfs "\$@"
	SCRIPT
	chmod 0755 "$tools" "$tools/tar2sqfs"
	in_front "tar2sqfs = \"$tools/tar2sqfs\""
	run_ok crun --container-image="$ref" cat /stamp
	! pgrep -f '^sleep 600.4711' || fail 'a process that could change the image is left'
}

@test "sandbox: what serves a user's squashfs can read that file and nothing else of its user's" {
	users_squashfs
	users_secret
	probe squashfuse_ll <<-SCRIPT
		common()
		attempt("read-secret", lambda: open("$user_home/secret"))
		attempt("write-home", lambda: open("$user_home/secret", "w"))
		attempt("list-home", lambda: os.listdir("$user_home"))
		attempt("read-squashfs", lambda: open("/proc/self/fd/3", "rb").read(4) == b"hsqs" or os.stat("/none"))
	SCRIPT
	in_front "squashfuse = \"$tools/squashfuse_ll\""
	run_fails crun --container-image="$user_home/sandbox.sqsh" true
	expect_could 'read-squashfs'
	expect_clean
}

@test "sandbox: what saves a container reads the container and writes the file's directory" {
	users_secret
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" true
	probe tar2sqfs <<-SCRIPT
		common()
		attempt("read-secret", lambda: open("$user_home/secret"))
		attempt("write-home", lambda: open("$user_home/secret", "w"))
		attempt("write-saved-file", lambda: open(sys.argv[-1], "r+b"))
	SCRIPT
	in_front "tar2sqfs = \"$tools/tar2sqfs\""
	as_user mkdir saved
	run_fails crun --container-image="$BROLGA_TEST_IMAGE" --container-save=saved/c.sqsh true
	expect_could 'write-saved-file'
	[[ -z $(ls -A "$user_home/saved") ]]
	expect_clean
}

@test "sandbox: a pull writes to its cache only, also where a directory of it is exchanged for a link" {
	ref=$(fresh_image 2)
	slow_registry 1000000
	in_background as_user brolga pull --config "$BROLGA_CONFIG" --quiet "$(through_slow "$ref")"
	pull_stuck
	for status in "/proc/$(our_programs bin/brolga pull)/task/"*/status; do
		grep -q '^NoNewPrivs:	1$' "$status"
		grep -q '^Seccomp:	2$' "$status"
	done
	as_user sh -c 'mv .cache/brolga/blobs .cache/blobs.away && cp -a .cache/blobs.away outside && ln -s ../../outside .cache/brolga/blobs'
	fast_registry
	background_ends 60
	as_user sh -c 'rm .cache/brolga/blobs && mv .cache/blobs.away .cache/brolga/blobs'
	((status != 0)) || fail "$output"
	expect_match 'brolga: error: pull .*: (permission denied|invalid cross-device link)$'
	for file in "$user_home/outside/sha256/"[0-9a-f]*; do
		[[ -e $user_home/.cache/brolga/blobs/sha256/${file##*/} ]] || fail "the pull has written $file"
	done
}

@test "sandbox: a site can let programs use more, or switch it off" {
	ref=$(fresh_image)
	probe tar2sqfs <<<'common()'
	in_front "tar2sqfs = \"$tools/tar2sqfs\"" 'sandbox.read = ["/etc/passwd"]'
	run_fails crun --container-image="$ref" true
	expect_could 'read-passwd'
	in_front 'sandbox.mode = "off"'
	sed -i '/^sandbox.read/d' "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	run_fails crun --container-image="$ref" true
	[[ $(could) == *'connect local-socket'* ]] || fail "$output"
}
