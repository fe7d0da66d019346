#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# brolga load and brolga export: images of files by name, and the way back.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	new_image
	echo "image $BATS_TEST_NUMBER" >"$image/stamp"
	mkimage --env PATH=/bin --env FROM=image --to "docker-archive:$user_home/saved.tar:loaded/app:1" loaded "$image" >/dev/null
	mksquashfs "$image" "$user_home/app.sqsh" -all-root -noappend -quiet -no-progress >/dev/null
	chown "$BROLGA_TEST_USER:" "$user_home"/{saved.tar,app.sqsh}
	as_user rm -rf out.sqsh layout out.tar
	as_user brolga rmi --force docker.io/loaded/app:1 docker.io/loaded/sq:1 >/dev/null 2>&1 || true
	given
}

teardown() {
	dump_logs_on_failure
	rm -rf "$user_home"/{saved.tar,app.sqsh,out.sqsh,out.tar,layout}
}

stamp() {
	run_ok as_user srun --container-image="$1" cat /stamp
	expect_line "image $BATS_TEST_NUMBER"
}

@test "load: an archive has the names that it was saved with" {
	run_ok as_user brolga load saved.tar
	expect_match '^docker.io/loaded/app:1@sha256:[0-9a-f]{64}$'
	rm "$user_home/saved.tar"
	stamp loaded/app:1
}

@test "load: a squashfs gets a name and is converted like any image" {
	run_fails as_user brolga load app.sqsh
	expect_line "brolga: error: load $user_home/app.sqsh: it does not say what the image is called"
	expect_line 'brolga: hint: give it a name: --name=NAME:TAG'
	run_ok as_user brolga load --name loaded/sq:1 app.sqsh
	rm "$user_home/app.sqsh"
	stamp loaded/sq:1
}

@test "load: what is wrong with a file is said, the others are loaded" {
	run_fails as_user brolga load nope saved.tar
	expect_line "brolga: error: load $user_home/nope: stat $user_home/nope: no such file or directory"
	expect_match '^docker.io/loaded/app:1@sha256:'
	run_fails as_user brolga load --name a saved.tar app.sqsh
	expect_line 'brolga: error: load: --name is for one FILE'
	run_fails as_user brolga load --name A saved.tar
	expect_match 'image name "A"'
}

@test "export: a squashfs, a layout and an archive run, and other programs read them" {
	run_ok as_user brolga load saved.tar
	run_ok as_user brolga export loaded/app:1 out.sqsh
	run_ok as_user brolga export loaded/app:1 oci:layout:v1
	run_ok as_user brolga export loaded/app:1 oci-archive:out.tar:v1
	[[ $(unsquashfs -cat "$user_home/out.sqsh" stamp) == "image $BATS_TEST_NUMBER" ]]
	[[ $(skopeo inspect --format '{{.Digest}}' "oci:$user_home/layout:v1") == "$(skopeo inspect --format '{{.Digest}}' "oci-archive:$user_home/out.tar:v1")" ]]
	umoci unpack --image "$user_home/layout:v1" "$BATS_TEST_TMPDIR/unpacked"
	[[ $(<"$BATS_TEST_TMPDIR/unpacked/rootfs/stamp") == "image $BATS_TEST_NUMBER" ]]
	stamp ./out.sqsh
	stamp oci:layout:v1
	stamp oci-archive:out.tar
	run_ok as_user srun --container-image=oci:layout sh -c 'echo $FROM'
	expect_line image
}

@test "export: what is there stays, unless it is to be replaced" {
	run_ok as_user brolga load saved.tar
	as_user bash -c 'echo mine >out.sqsh; mkdir layout'
	run_fails as_user brolga export loaded/app:1 out.sqsh
	expect_line "brolga: error: export docker.io/loaded/app:1: $user_home/out.sqsh exists"
	expect_line 'brolga: hint: choose another name, or give --force to replace it'
	run_fails as_user brolga export loaded/app:1 oci:layout
	expect_line "brolga: error: export docker.io/loaded/app:1: $user_home/layout exists"
	[[ $(<"$user_home/out.sqsh") == mine ]]
	run_ok as_user brolga export --force loaded/app:1 out.sqsh
	[[ $(unsquashfs -cat "$user_home/out.sqsh" stamp) == "image $BATS_TEST_NUMBER" ]]
	run_fails as_user brolga export --force loaded/app:1 oci:layout
	expect_line "brolga: error: export docker.io/loaded/app:1: $user_home/layout is a directory, but no OCI image layout: it is not replaced"
	as_user rmdir layout
	run_ok as_user brolga export loaded/app:1 oci:layout
	run_ok as_user brolga export --force loaded/app:1 oci:layout:again
	[[ $(jq -r '.manifests[0].annotations[]' "$user_home/layout/index.json") == again ]]
	[[ -z $(find "$user_home" -maxdepth 1 -name '.brolga-export*') ]]
}

@test "export: nothing is left where it cannot succeed" {
	run_ok as_user brolga load saved.tar
	run_fails as_user brolga export loaded/app:1 /proc/out.sqsh
	run_fails as_user brolga export loaded/app:1 no/such/out.sqsh
	expect_match 'no such file or directory'
	run_fails as_user brolga export dir:/tmp out.sqsh
	expect_match 'a directory is no image that could be exported'
	run_fails as_user brolga export loaded/app:1 ./out.tar
	expect_line 'brolga: error: export: ./out.tar: want FILE.sqsh, oci:DIR[:NAME] or oci-archive:FILE[:NAME]'
	run_fails as_user brolga export loaded/app:1 docker-archive:out.tar
	expect_match 'want FILE.sqsh, oci:DIR'
	run as_user timeout --signal=INT 0.02 brolga export loaded/app:1 out.sqsh
	[[ -z $(find "$user_home" -maxdepth 1 -name ".brolga-export*") ]]
}
