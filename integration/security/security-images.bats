#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Images, layouts and archives that someone has made to do harm. A step with one runs,
# or ends with one clear line. The host stays as it is, nothing hangs, no node drains.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images

setup_file() {
	local BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR # for new_image
	local image
	theirs=$(mktemp -d /var/tmp/brolga-theirs.XXXXXX)
	chmod 0755 "$theirs"
	mkdir "$theirs/open" "$theirs/root"
	new_image
	mv "$image"/* "$theirs/root"
	mkdir -p "$theirs"/root/{dev,proc,sys,run,var,home,opt}
	for file in passwd group hosts resolv.conf; do
		echo "# image" >"$theirs/root/etc/$file"
	done
	export theirs
	HOST_DIRECTORY=$theirs/open ARCHITECTURE=$(dpkg --print-architecture) \
		"$repo/integration/programs/hostile-images" "$theirs/root" "$theirs/layouts" >"$BATS_FILE_TMPDIR/names"
	chown -R "$BROLGA_TEST_USER:" "$theirs/layouts"
}

teardown_file() { rm -rf "$theirs"; }

setup() {
	mark_logs
	as_user mkdir -p hostile
	before=$(host_state)
	note_host_mounts
	given
}

teardown() {
	dump_logs_on_failure
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	rm -rf "$user_home/hostile"
}

# What an image could make or change on the host.
host_state() {
	find / /opt -maxdepth 1 -printf '%p %y %m %U %l\n' | sort
	find "$theirs/open" -printf '%p %y %m %U %i %l %T@ %C@\n' | sort
}

# try NAME OPTION...: one step, whose output and status are kept under that name.
# shellcheck disable=SC2016 # for the shell of the step
try() {
	local status=0
	as_user timeout --kill-after=5 100 srun -w "n$((RANDOM % BROLGA_TEST_NODES + 1))" "${@:2}" sh -c '
		echo it runs; ls -la / /dev /etc /opt /mnt /tmp; cat /shadow /x /y /disk /etc/*; id -u; busybox2; true' \
		>"$BATS_TEST_TMPDIR/said.$1" 2>&1 </dev/null || status=$?
	echo "status $status" >>"$BATS_TEST_TMPDIR/said.$1"
} 3>&-

# outcome FILE: "runs", "refused", or else what was said.
outcome() {
	local errors
	# An image without a shell is an error that Slurm tells.
	errors=$(sed -nE 's/.*(brolga: error: |(execve\(\): sh: No such))/\2/p' "$1" | sort -u)
	if grep -qx 'it runs' "$1" && grep -qx 'status 0' "$1"; then
		echo runs
	elif [[ -n $errors && $(wc -l <<<"$errors") == 1 ]] && ! grep -qE 'status (0|124|137)$' "$1"; then
		echo refused
	else
		sed 's/^/    /' "$1"
	fi
}

# try_all: "NAME OPTION..." lines of standard input, several steps at once.
try_all() {
	local name options running=()
	while read -r name options; do
		if ((${#running[@]} >= BROLGA_TEST_NODES)); then
			wait "${running[0]}"
			running=("${running[@]:1}")
		fi
		# shellcheck disable=SC2086 # several words
		try "$name" $options &
		running+=($!)
	done
	wait "${running[@]}"
	for name in "$BATS_TEST_TMPDIR"/said.*; do
		echo "${name##*/said.} $(outcome "$name")"
	done >"$BATS_TEST_TMPDIR/outcomes"
}

# The host is as before, and no step showed what the user may not read.
unharmed() {
	diff <(echo "$before") <(host_state) >&2 || fail "the host was changed"
	! grep -lE '^root:[^x]' "$BATS_TEST_TMPDIR"/said.* || fail "the host's file was shown"
	! grep -HiE 'panic|goroutine|internal error|runtime error|segmentation' "$BATS_TEST_TMPDIR"/said.* || fail "a program has failed"
	! grep -HP '^(.*brolga: .*)[\x00-\x08\x0b-\x1f]' "$BATS_TEST_TMPDIR"/said.* || fail "a message has control characters"
	! grep -vE '^[^ ]+ (runs|refused)$' "$BATS_TEST_TMPDIR/outcomes" || fail "neither run nor refused in one line"
	expect_no_leftovers
	nodes_idle
	[[ -z $(find "$BROLGA_CLUSTER_DIR/store" -name '.tmp-*') ]] || fail "$(find "$BROLGA_CLUSTER_DIR/store" -name '.tmp-*')"
}

names() { grep "^$1-" "$BATS_FILE_TMPDIR/names"; }

# expect_outcomes TABLE: for each outcome the names that have it.
expect_outcomes() {
	local word found
	for word in runs refused; do
		found=$(awk -v word="$word" '$2 == word {sub(/^[a-z]+-/, "", $1); print $1}' "$BATS_TEST_TMPDIR/outcomes" | sort)
		diff <(sed -n "s/^$word: //p" <<<"$1" | tr ' ' '\n' | sort) <(echo "$found") >&2 || fail "not all of these $word"
	done
}

@test "images: a special name that is anything else harms nothing" {
	names special | sed "s|.*|& --container-image=oci:$theirs/layouts/& --container-mounts=$theirs/open:/opt,$theirs/open:/mnt/e|" >"$BATS_TEST_TMPDIR/cases"
	try_all <"$BATS_TEST_TMPDIR/cases"
	unharmed
}

@test "images: layers with hostile names, links, whiteouts and attributes harm nothing" {
	names layer | sed "s|.*|& --container-image=oci:$theirs/layouts/& --container-mounts=$theirs/open:/opt|" >"$BATS_TEST_TMPDIR/cases"
	try_all <"$BATS_TEST_TMPDIR/cases"
	unharmed
	expect_outcomes "
runs: whiteout-nothing whiteout-dot whiteout-dots whiteout-outside whiteout-through-link
runs: name-newline name-255 name-bytes name-deep name-absolute name-outside name-below-link name-below-file
runs: setuid capability twice overlay-opaque overlay-redirect overlay-user label disk time
refused: whiteout-root hard-outside hard-absolute hard-missing hard-itself hard-directory hard-through-link
refused: name-256 name-empty twice-root overlay-whiteout owner"
	# The program is root's and setuid, and is the user's all the same.
	[[ $(tail -n 2 "$BATS_TEST_TMPDIR/said.layer-setuid" | head -n 1) == "$(id -u "$BROLGA_TEST_USER")" ]] || fail "$(<"$BATS_TEST_TMPDIR/said.layer-setuid")"
	for name in absolute outside; do
		[[ ! -e /opt/$name ]] || fail "/opt/$name was made on the host"
	done
}

@test "images: hostile metadata of a layout harms nothing" {
	names metadata | sed "s|.*|& --container-image=oci:$theirs/layouts/&|" >"$BATS_TEST_TMPDIR/cases"
	try_all <"$BATS_TEST_TMPDIR/cases"
	unharmed
	expect_outcomes "
runs: config-null env-ours kind-foreign kind-zstd labels-odd user-odd volumes-odd workdir-dots workdir-lines
refused: index-itself index-nested index-empty index-null index-numbers
refused: digest-sha512 digest-md5 digest-path digest-line digest-none digest-other
refused: size-negative size-huge size-wrong kind-unknown layers-null layers-numbers
refused: config-diff-ids env-odd entrypoint-nul"
}

@test "images: archives with links and names that lead outside harm nothing" {
	names docker | sed "s|.*|& --container-image=docker-archive:$theirs/layouts/&|" >"$BATS_TEST_TMPDIR/cases"
	try_all <"$BATS_TEST_TMPDIR/cases"
	unharmed
	expect_outcomes "
runs: good layer-link-inside tags-odd
refused: config-outside config-absolute layer-outside layer-link layer-link-loop layer-hard layer-fifo
refused: layer-twice layers-many layers-null manifest-link manifest-directory manifest-empty manifest-null nothing"
}

# shape FILE NAME SHAPE: what the name is in the directory FILE, as in hostile-images.
shape() {
	local at=$1/$2 made=/opt/made-by-${2//\//-} i
	rm -rf "$at"
	case $3 in
	absolute) ln -s "$made" "$at" ;;
	dots) ln -s "../../../../../../../..$made" "$at" ;;
	host) ln -s "$theirs/open/made" "$at" ;;
	loop) ln -s "/$2" "$at" ;;
	file) touch "$at" ;;
	fifo) mkfifo "$at" ;;
	socket) python3 -c 'import os, socket, sys; os.chdir(sys.argv[1]); socket.socket(socket.AF_UNIX).bind(sys.argv[2])' "${at%/*}" "${at##*/}" ;;
	device) mknod "$at" c 1 5 ;;
	closed) mkdir -m 0 "$at" ;;
	chain)
		ln -s /chain0 "$at"
		for ((i = 0; i < 39; i++)); do
			ln -s "chain$((i + 1))" "$1/chain$i"
		done
		ln -s "$made" "$1/chain39"
		;;
	esac
	[[ $3 == missing ]] || chown -h "$BROLGA_TEST_USER:" "$at"
}

@test "images: a directory whose special name is anything else harms nothing" {
	local name shape at
	for name in dev proc sys etc run tmp home mnt/e etc/passwd etc/hosts; do
		for shape in absolute dots host chain loop file fifo socket device closed missing; do
			at=$user_home/hostile/${name//\//-}-$shape
			cp -al "$theirs/root" "$at"
			shape "$at" "$name" "$shape"
			# Not the directory of the host that a link leads to.
			chown -h "$BROLGA_TEST_USER:" "$at" "$at/etc" "$at/mnt" 2>/dev/null || true
			echo "dir-${at##*/} --container-image=dir:$at --container-mounts=$theirs/open:/opt,$theirs/open:/mnt/e"
		done
	done >"$BATS_TEST_TMPDIR/cases"
	try_all <"$BATS_TEST_TMPDIR/cases"
	unharmed
}

@test "images: names that are no image of their kind are refused, and hang nothing" {
	local name
	as_user mkfifo hostile/fifo.sqsh
	for name in index blobs blob shadow directory; do
		cp -a "$theirs/layouts/layer-label" "$user_home/hostile/$name"
	done
	as_user sh -c 'cd hostile
		rm index/index.json && mkfifo index/index.json
		rm -r blobs/blobs && ln -s /etc blobs/blobs
		rm blob/blobs/sha256/* && mkfifo blob/blobs/sha256/'"$(jq -r '.manifests[0].digest[7:]' "$theirs/layouts/layer-label/index.json")"'
		rm shadow/index.json && ln -s /etc/shadow shadow/index.json
		rm directory/index.json && mkdir directory/index.json'
	{
		for name in index blobs blob shadow directory fifo.sqsh; do
			echo "layout-$name --container-image=oci:$user_home/hostile/$name"
		done
		for name in "$user_home/hostile/fifo.sqsh" /dev/zero /dev/null /proc/self/mem /proc/kmsg /etc/shadow /etc; do
			echo "oci${name//\//-} --container-image=oci-archive:$name"
			echo "docker${name//\//-} --container-image=docker-archive:$name"
		done
		for name in "$user_home/hostile/fifo.sqsh" /dev/zero /proc/1/root /proc/self/mem /proc/self/fd/0 /root /etc/shadow; do
			echo "dir${name//\//-} --container-image=dir:$name"
		done
		for name in /dev/zero /dev/null /etc/shadow /dev; do
			as_user ln -s "$name" "hostile/link${name//\//-}.sqsh"
			echo "file${name//\//-} --container-image=./hostile/link${name//\//-}.sqsh"
		done
		echo "file-fifo --container-image=./hostile/fifo.sqsh"
	} >"$BATS_TEST_TMPDIR/cases"
	try_all <"$BATS_TEST_TMPDIR/cases"
	unharmed
	! grep -v ' refused$' "$BATS_TEST_TMPDIR/outcomes" || fail "something was taken for an image"
}
