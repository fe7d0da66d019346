# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Small images made on the spot, of a static busybox and what a test adds.
# "load images" after "load helpers".
#
#   new_image                     start a new one in the directory $image
#   push_image [OPTION]... NAME   push it and pull it for the user; $ref is its
#                                 reference, the options are mkimage's
#   last_job                      the highest job number so far

new_image() {
	local applet
	image=$BATS_TEST_TMPDIR/image
	rm -rf "$image"
	mkdir -p "$image"/{bin,etc,mnt/e,tmp}
	chmod 1777 "$image/tmp"
	cp "$(command -v busybox)" "$image/bin/busybox"
	for applet in sh cat env grep id ls mkdir pwd sleep stat touch; do
		ln -s busybox "$image/bin/$applet"
	done
}

# shellcheck disable=SC2034 # for the test
push_image() {
	ref=$(mkimage --env PATH=/bin "$@" "$image")
	as_user brolga pull --quiet "$ref" >/dev/null
}

last_job() { squeue --noheader --states=all --format=%A | sort -n | tail -n1; }
