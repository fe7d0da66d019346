#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-image with squashfs files and root directories.

load ../lib/helpers
load ../lib/images

# app.sqsh and root/, with the same content, in the user's home.
setup() {
	mark_logs
	new_image
	echo "root:x:0:0::/:/bin/sh" >"$image/etc/passwd"
	write_squashfs "image one"
	rm -rf "$user_home/root"
	cp -a "$image" "$user_home/root"
	chown -R "$BROLGA_TEST_USER:" "$user_home/root"
	given
}

# write_squashfs STAMP: make app.sqsh anew.
write_squashfs() {
	echo "$1" >"$image/stamp"
	rm -f "$user_home/app.sqsh"
	mksquashfs "$image" "$user_home/app.sqsh" -all-root -quiet -no-progress >/dev/null
	chown "$BROLGA_TEST_USER:" "$user_home/app.sqsh"
}

# Processes that serve squashfs files; a zombie has no arguments.
servers() { pgrep -u "$BROLGA_TEST_USER" -f 'squashfuse_ll -f /proc/self/fd/3' | wc -l; }

# In a step, of the user's processes: those of other tests are there, too.
# shellcheck disable=SC2016 # for the shell of the step
count_servers='for p in /proc/[0-9]*; do
	[ ! -O "$p" ] || tr "\0" " " <"$p/cmdline"
done 2>/dev/null | grep -c "[s]quashfuse_ll -f /proc/self/fd/3"'

no_servers() { (($(servers) == 0)); }

stamp() {
	run_ok as_user srun -N2 --label --container-image="$1" cat /stamp
	expect_match "^0: $2"
	expect_match "^1: $2"
}

@test "files: a squashfs runs on all nodes, in each way that a site may choose" {
	for way in fuse convert kernel; do
		site_config "user_squashfs = '$way'"
		write_squashfs "by $way"
		stamp "$user_home/app.sqsh" "by $way"
		stamp ./app.sqsh "by $way"
		retry 5 no_servers
	done
	expect_no_leftovers
}

@test "files: squashfuse serves by default, as the user, while the step runs" {
	run_ok crun --container-image=./app.sqsh sh -c "$count_servers; cat /etc/passwd; echo new >/tmp/new && cat /tmp/new"
	expect_match '^[1-9]'
	expect_line new
	expect_match '^root:x:0:0::/:/bin/sh'
	expect_match "^$BROLGA_TEST_USER:"
	retry 5 no_servers
	[[ $(unsquashfs -cat "$user_home/app.sqsh" stamp) == "image one" ]]
}

@test "files: what root alone can change is mounted by the kernel, unless it is refused" {
	local dir
	dir=$(mktemp -d "/opt/brolga-test.XXXXXX")
	install -m 0644 "$user_home/app.sqsh" "$dir/app.sqsh"
	chmod 0755 "$dir"
	run_ok crun --container-image="$dir/app.sqsh" sh -c "cat /stamp; $count_servers || true"
	expect_line "image one"
	expect_line 0
	site_config "user_squashfs = 'deny'"
	refused "$dir/app.sqsh: this cluster runs no squashfs files of users" --container-image="$dir/app.sqsh"
	expect_line 'brolga: hint: use an image in a registry, an archive or an OCI image layout'
	rm -r "$dir"
}

@test "files: a converted squashfs is converted once for each content" {
	site_config "user_squashfs = 'convert'"
	write_squashfs "converted $BATS_TEST_NUMBER $$"
	stamp ./app.sqsh "converted"
	before=$(find "$BROLGA_CLUSTER_DIR/store/sha256" -name '*.squashfs' | wc -l)
	as_user cp app.sqsh copy.sqsh
	stamp ./copy.sqsh "converted"
	(($(find "$BROLGA_CLUSTER_DIR/store/sha256" -name '*.squashfs' | wc -l) == before))
	[[ -z $(find "$BROLGA_CLUSTER_DIR/store" -name '.tmp-*') ]]
	write_squashfs "converted anew $$"
	stamp ./app.sqsh "converted anew"
}

@test "files: a directory is a root file system that the step cannot change" {
	run_ok crun --container-image=dir:root sh -c 'cat /stamp; echo new >/stamp; mkdir /made; cat /stamp'
	expect_line "image one"
	expect_line new
	[[ $(as_user cat root/stamp) == "image one" && ! -e $user_home/root/made ]]
	stamp "dir:$user_home/root" "image one"
	run_fails crun --container-readonly --container-image=dir:root sh -c 'echo new >/stamp'
	expect_match 'Read-only file system'
	expect_no_leftovers
}

@test "files: a directory that cannot be below an overlay is shown read-only" {
	local low
	low=$(mktemp -d /opt/brolga-test.XXXXXX)
	mkdir -p "$low"/{t,m1,m2}
	mount -t tmpfs none "$low/t"
	mkdir "$low"/t/{u1,w1,u2,w2}
	chmod 0755 "$low"
	mkdir -p "$image"/{proc,sys,dev,home,etc}
	touch "$image"/etc/{passwd,group,hosts,resolv.conf}
	mount -t overlay none "$low/m1" -o "lowerdir=$image,upperdir=$low/t/u1,workdir=$low/t/w1"
	mount -t overlay none "$low/m2" -o "lowerdir=$low/m1,upperdir=$low/t/u2,workdir=$low/t/w2"
	run crun --no-container-mount-home --container-image="dir:$low/m2" sh -c 'cat /stamp; echo new >/stamp'
	umount "$low/m2" "$low/m1" "$low/t"
	rm -r "$low"
	expect_line "image one"
	expect_match 'Read-only file system'
}

@test "files: what cannot be an image is said before anything is submitted" {
	as_user bash -c 'echo text >text.sqsh; mkdir -p dir.sqsh; tar -cf tar.sqsh text.sqsh; [[ -p fifo.sqsh ]] || mkfifo fifo.sqsh'
	refused "open $user_home/nope.sqsh: no such file or directory" --container-image=./nope.sqsh
	refused "$user_home/text.sqsh is not a squashfs" --container-image=./text.sqsh
	refused "$user_home/tar.sqsh is not a squashfs" --container-image=./tar.sqsh
	expect_line 'brolga: hint: an archive is named oci-archive:FILE or docker-archive:FILE'
	refused "$user_home/fifo.sqsh is not a regular file" --container-image=./fifo.sqsh
	refused "$user_home/dir.sqsh is a directory" --container-image=./dir.sqsh
	expect_line "brolga: hint: a root directory is named dir:$user_home/dir.sqsh, an OCI image layout oci:$user_home/dir.sqsh"
	refused "$user_home/app.sqsh is not a directory" --container-image=dir:app.sqsh
	refused '--container-image: image name "app.sqsh": a repository or a file?' --container-image=app.sqsh
	expect_line 'brolga: hint: a file is named ./app.sqsh'
}
