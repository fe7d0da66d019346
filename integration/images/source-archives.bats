#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-image with archives and OCI image layouts, as skopeo writes them.

load ../lib/helpers
load ../lib/images

# Archives in the user's home; images/ is an OCI image layout.
setup() {
	mark_logs
	new_image
	echo "image one" >"$image/stamp"
	as_user rm -rf images one.tar two.tar
	archive oci-archive:"$user_home/one.tar":v1
	given
}

# archive TARGET: write $image there, as skopeo names it, for the user.
archive() {
	mkimage --env PATH=/bin --to "$1" archived "$image" >/dev/null
	chown -R "$BROLGA_TEST_USER:" "$user_home"/{images,*.tar} 2>/dev/null || true
}

stamp() {
	run_ok as_user env "${with_env[@]}" srun -N2 --label --container-image="$1" cat /stamp
	expect_match "^0: $2"
	expect_match "^1: $2"
}

digest_of() { as_user brolga images --json | jq -r --arg ref "$1" '.[] | select(.reference == $ref) | .digest'; }

@test "archives: an OCI archive, an OCI layout and a Docker archive run on all nodes" {
	stamp "oci-archive:$user_home/one.tar" "image one"
	stamp "oci-archive:$user_home/one.tar:v1" "image one"
	archive "oci:$user_home/images:v1"
	stamp "oci:$user_home/images:v1" "image one"
	archive "docker-archive:$user_home/two.tar:me/app:1"
	stamp "docker-archive:$user_home/two.tar" "image one"
	stamp "docker-archive:$user_home/two.tar:me/app:1" "image one"
}

@test "archives: compression makes no other image" {
	archive "docker-archive:$user_home/two.tar:me/app:1"
	as_user bash -c 'gzip <two.tar >two.tar.gz && zstd -q -f two.tar -o two.tar.zst'
	for suffix in '' .gz .zst; do
		stamp "docker-archive:$user_home/two.tar$suffix" "image one"
	done
	for suffix in '' .gz .zst; do
		digest_of "docker-archive:$user_home/two.tar$suffix"
	done >"$BATS_TEST_TMPDIR/digests"
	(($(sort -u "$BATS_TEST_TMPDIR/digests" | grep -c sha256) == 1))
}

@test "archives: a relative path starts where the job is submitted, also for its steps" {
	as_user mkdir -p elsewhere
	as_user tee job.sh >/dev/null <<-SCRIPT
		#!/bin/sh
		#SBATCH --container-image=oci-archive:one.tar --output=job.out
		cat /stamp
	SCRIPT
	run_ok batch job.sh
	[[ $(as_user cat job.out) == "image one" ]]
	run_ok as_user bash -c 'cd elsewhere && srun --container-image=oci-archive:../one.tar cat /stamp'
	expect_line "image one"
	refused "open $user_home/nope.tar: no such file or directory" --container-image=oci-archive:nope.tar
}

@test "archives: a job runs what the archive was when it was submitted" {
	local job
	run_ok as_user sbatch --parsable --hold --output=job.out --container-image="oci-archive:one.tar" --wrap 'cat /stamp'
	job=$output
	echo "image two" >"$image/stamp"
	rm "$user_home/one.tar"
	archive oci-archive:"$user_home/one.tar":v1
	stamp "oci-archive:$user_home/one.tar" "image two"
	scontrol release "$job"
	retry 20 job_ended "$job"
	[[ $(as_user cat job.out) == "image one" ]]
}

@test "archives: a change is noticed, also where size and time stay" {
	local time size
	sleep 2.1 # older changes are noticed by what the cache keeps
	stamp "oci-archive:$user_home/one.tar" "image one"
	stamp "oci-archive:$user_home/one.tar" "image one"
	time=$(stat -c %y "$user_home/one.tar")
	size=$(stat -c %s "$user_home/one.tar")
	echo "image two" >"$image/stamp"
	archive oci-archive:"$user_home/two.tar":v1
	as_user truncate --size="$size" two.tar
	as_user cp two.tar one.tar
	touch -d "$time" "$user_home/one.tar"
	[[ $(stat -c '%y %s' "$user_home/one.tar") == "$time $size" ]]
	stamp "oci-archive:$user_home/one.tar" "image two"
}

@test "archives: tag and digest together, the digest decides and must be there" {
	local digest other=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
	stamp "oci-archive:$user_home/one.tar:v1" "image one"
	digest=$(digest_of "oci-archive:$user_home/one.tar:v1")
	stamp "oci-archive:$user_home/one.tar:v1@$digest" "image one"
	stamp "oci-archive:one.tar@$digest" "image one"
	refused "load oci-archive:$user_home/one.tar@$other: there is no image $other in it" --container-image="oci-archive:one.tar@$other"
}

@test "archives: what is wrong with one is said before anything is submitted" {
	local layer
	refused "load oci-archive:$user_home/one.tar:v2: there is no image \"v2\" in it; there is v1" --container-image=oci-archive:one.tar:v2
	as_user bash -c 'head -c 100000 one.tar >short.tar; echo text >text.tar; mkdir -p dir.tar; mkfifo -m 600 fifo.tar || true'
	refused "load oci-archive:$user_home/short.tar: the file ends in the middle: it was not copied or written as a whole" --container-image=oci-archive:short.tar
	refused "load docker-archive:$user_home/text.tar: the file ends in the middle: it was not copied or written as a whole" --container-image=docker-archive:text.tar
	refused "$user_home/dir.tar is a directory" --container-image=docker-archive:dir.tar
	refused "$user_home/fifo.tar is not a regular file" --container-image=docker-archive:fifo.tar
	refused "load oci:$user_home/dir.tar: it has no index.json, so it is not an OCI image layout" --container-image=oci:dir.tar
	archive "oci:$user_home/images:v1"
	layer=$(find "$user_home/images/blobs/sha256" -size +100k)
	printf x | dd of="$layer" conv=notrunc bs=1 seek=1000 status=none
	as_user rm -rf .cache/brolga
	refused_with 'is corrupt: its content has digest' --container-image=oci:images:v1
	rm "$layer"
	refused_with 'it is missing' --container-image=oci:images:v1
}

# refused_with TEXT OPTION...: srun says an error with TEXT and submits nothing.
refused_with() {
	local text=$1 before
	shift
	before=$(last_job)
	run_fails crun "$@" true
	expect_match "brolga: error: .*$text"
	[[ $(last_job) == "$before" ]]
}

@test "archives: several images in one are told apart by name" {
	archive "docker-archive:$user_home/two.tar:me/app:1"
	as_user bash -c 'mkdir -p x && tar -C x -xf two.tar && jq -c ".[0] as \$a | [\$a, (\$a | .RepoTags = [\"me/app:2\"])]" x/manifest.json >m && mv -f m x/manifest.json && tar -C x -cf two.tar .'
	refused "load docker-archive:$user_home/two.tar: there are several images in it: docker.io/me/app:1, me/app:2" --container-image=docker-archive:two.tar
	expect_line "brolga: hint: say which: docker-archive:$user_home/two.tar:NAME"
	stamp docker-archive:two.tar:me/app:2 "image one"
}
