#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Images with odd content: conversions stay small, and what they make is what the
# digests say.

load ../lib/helpers
load ../lib/lifecycle

# hostile KIND: writes the layer of that kind to $layer.
hostile() {
	layer=$BATS_TEST_TMPDIR/layer.tar
	python3 - "$1" "$layer" <<-'PYTHON'
		import io, sys, tarfile

		kind, path = sys.argv[1:]
		out = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)

		def add(name, content=b"", **attributes):
		    info = tarfile.TarInfo(name)
		    info.size = len(content)
		    for key, value in attributes.items():
		        setattr(info, key, value)
		    out.addfile(info, io.BytesIO(content))

		if kind == "files":
		    info = tarfile.TarInfo("")
		    start = bytearray(info.tobuf()[:512])
		    start[148:156] = b" " * 8
		    plain, rest = sum(start), bytes(start[156:])
		    for d in range(1000):
		        for f in range(1000):
		            name = f"many{d}/{f}".encode()
		            out.fileobj.write(name + bytes(100 - len(name)) + bytes(start[100:148]) + b"%06o\0 " % (plain + sum(name)) + rest)
		    out.offset = out.fileobj.tell()
		elif kind == "whiteouts":
		    for name in (".wh.", ".wh..", ".wh...", "/.wh..", "../.wh...", "./.wh..wh..opq/x", ".wh..wh.aufs", "a/../.wh."):
		        add(name)
		elif kind == "root":
		    for name in (".", "/", "..", "../..", "a/.."):
		        add(name, type=tarfile.SYMTYPE, linkname="/etc")
		elif kind == "names":
		    add("x" * (100 << 20))
		elif kind == "attributes":
		    for f in range(12000):
		        add(f"f{f}", pax_headers={"SCHILY.xattr.user.x": "y" * 60000})
		out.close()
	PYTHON
}

# watched REF: runs it and sets $peak, the most memory that a process of its conversion
# had, in kB.
watched() {
	local pid now
	in_background crun --container-image="$1" cat /stamp
	peak=0
	while [[ -n $background ]] && ! not_alive "$background"; do
		for pid in $(pgrep -f "^($BROLGA_CLUSTER_DIR/prefix/bin/brolga convert|/usr/bin/tar2sqfs) "); do
			now=$(awk '/VmHWM/ {print $2}' "/proc/$pid/status" 2>/dev/null) || now=0
			((${now:-0} <= peak)) || peak=$now
		done
		sleep 0.1
	done
	background_ends 120
}

@test "convert: an image with a million empty files is converted within the limit of memory" {
	base=$(fresh_image)
	hostile files
	ref=$(mkimage --from "$base" "hostile/$BATS_TEST_NUMBER-$$" "$layer")
	watched "$ref"
	((status == 0)) || fail "$output"
	((peak > 100 << 10 && peak < 2 << 20)) || fail "a process had $peak kB"
	echo "# the largest process had $((peak >> 10)) MiB" >&3
	no_drafts
	expect_clean
}

@test "convert: whiteouts of the root, and whiteouts without a name, hide nothing" {
	base=$(fresh_image)
	hostile whiteouts
	ref=$(mkimage --from "$base" "hostile/$BATS_TEST_NUMBER-$$" "$layer")
	run_ok crun --container-image="$ref" cat /stamp
	expect_match '^life/'
	run_ok crun --container-image="$ref" ls -a /
	refute_match '^\.wh'
	expect_clean
}

@test "convert: an image that puts something else in place of the root is refused" {
	base=$(fresh_image)
	hostile root
	ref=$(mkimage --from "$base" "hostile/$BATS_TEST_NUMBER-$$" "$layer")
	run_fails crun --container-image="$ref" cat /stamp
	expect_match "brolga: error: convert $ref@sha256:[0-9a-f]*: layer sha256:[0-9a-f]*: the root is not a directory\$"
	no_drafts
	expect_clean
}

@test "convert: a name of 100 MB is refused before it is read" {
	hostile names
	ref=$(mkimage "hostile/$BATS_TEST_NUMBER-$$" "$layer")
	watched "$ref"
	((status != 0))
	expect_match "brolga: error: convert $ref@sha256:[0-9a-f]*: layer sha256:[0-9a-f]*: "
	((peak < 200 << 10)) || fail "a process had $peak kB"
	no_drafts
	expect_clean
}

@test "convert: attributes that take more memory than the site allows are refused" {
	site_config 'convert.memory = "1g"'
	hostile attributes
	ref=$(mkimage "hostile/$BATS_TEST_NUMBER-$$" "$layer")
	rm "$layer"
	watched "$ref"
	((status != 0))
	expect_match "brolga: error: convert $ref@sha256:[0-9a-f]*: layer sha256:[0-9a-f]*: the image has more names and attributes than the site allows\$"
	expect_match "brolga: hint: an administrator can raise convert.memory in the site's configuration\$"
	((peak < 1 << 20)) || fail "a process had $peak kB"
	no_drafts
	expect_clean
}

@test "convert: a squashfs bomb ends when the limit for data is reached" {
	sed -i 's/^user_squashfs.*//' "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	site_config 'user_squashfs = "convert"'
	site_config 'convert.unpacked = "100m"'
	mkdir "$BATS_TEST_TMPDIR/tree"
	truncate -s 1G "$BATS_TEST_TMPDIR/tree/zeros"
	tar -C "$BATS_TEST_TMPDIR/tree" -cf - . | tar2sqfs --quiet "$BATS_TEST_TMPDIR/bomb.sqsh"
	(($(stat -c %s "$BATS_TEST_TMPDIR/bomb.sqsh") < 1 << 20))
	as_user rm -f bomb.sqsh
	install -o "$BROLGA_TEST_USER" -m 0644 "$BATS_TEST_TMPDIR/bomb.sqsh" "$user_home/bomb.sqsh"
	run_fails crun --container-image=./bomb.sqsh true
	as_user rm -f bomb.sqsh
	expect_match 'brolga: error: .*: the image has more data than the site allows$'
	expect_match "brolga: hint: an administrator can raise convert.unpacked in the site's configuration\$"
	no_drafts
	expect_clean
}

@test "convert: a squashfs that is larger than the site's limit for files ends with words" {
	sed -i 's/^user_squashfs.*//' "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	site_config 'user_squashfs = "convert"'
	site_config 'convert.squashfs = "5m"'
	mkdir "$BATS_TEST_TMPDIR/tree"
	head -c 20M /dev/urandom >"$BATS_TEST_TMPDIR/tree/noise"
	tar -C "$BATS_TEST_TMPDIR/tree" -cf - . | tar2sqfs --quiet "$BATS_TEST_TMPDIR/large.sqsh"
	install -o "$BROLGA_TEST_USER" -m 0644 "$BATS_TEST_TMPDIR/large.sqsh" "$user_home/large.sqsh"
	run_fails crun --container-image=./large.sqsh true
	as_user rm -f large.sqsh
	expect_match 'brolga: error: .*: the image has more data than the site allows$'
	expect_match "brolga: hint: an administrator can raise convert.squashfs in the site's configuration\$"
	refute_match 'SIGXFSZ|goroutine'
	no_drafts
	expect_clean
}

@test "convert: blobs that are exchanged all the time give the image of the digest or an error" {
	good=$(fresh_image 3)
	evil=$(fresh_image 3)
	for ref in "$good" "$evil"; do
		run_ok as_user brolga pull --quiet --config "$BROLGA_CONFIG" "$ref"
	done
	stamp=$(basename "${good%:*}")
	blobs=$user_home/.cache/brolga/blobs/sha256
	# of each image: manifest, configuration, layer
	for ref in "$good" "$evil"; do
		skopeo inspect --tls-verify=false --raw "docker://$ref" | jq -r '.config.digest, .layers[0].digest' | cut -d: -f2
	done >"$BATS_TEST_TMPDIR/digests"
	mapfile -t digest <"$BATS_TEST_TMPDIR/digests"
	for i in 0 1; do
		as_user cp "$blobs/${digest[i]}" "good$i"
		as_user cp "$blobs/${digest[i + 2]}" "evil$i"
	done
	as_user touch swap
	as_user bash -c "while [[ -e swap ]]; do
		for i in 0:${digest[0]} 1:${digest[1]}; do
			for what in evil good; do cp \$what\${i%%:*} new; mv new $blobs/\${i#*:}; done
		done
	done" >/dev/null 2>&1 3>&- &
	exchanger=$!
	for ((i = 0; i < 15; i++)); do
		run crun --container-image="$good" cat /stamp
		if ((status == 0)); then
			expect_match "^life/$stamp\$"
		else
			expect_match 'brolga: error: '
		fi
		rm -f "$(store_file "$good")"
	done
	as_user rm -f swap
	wait "$exchanger"
	no_drafts
	run_ok crun --container-image="$good" cat /stamp
	expect_match "^life/$stamp\$"
	expect_clean
}
