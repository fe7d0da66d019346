#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A user exchanges files with links to what is root's, as fast as the machine can,
# while steps start that use these names. Meanwhile root drops the kernel's cache of
# names, so that each is looked up anew. Whatever a step does then, it shows nothing
# that the user may not read, and root makes and changes nothing.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images

# How many steps start at once for each kind of file, each on a node of its own. With
# the four tests below there are some 230.
each=3

# Names of an image where root mounts, makes or writes something.
special=(dev proc sys tmp etc mnt)

setup_file() {
	local BATS_TEST_TMPDIR=$BATS_FILE_TMPDIR # for new_image
	local image applet
	export ref swapper=$BATS_FILE_TMPDIR/swapper
	chmod a+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/file"
	gcc -O1 -Wall -Werror -static -o "$swapper" "$repo/integration/programs/swapper.c"
	new_image
	echo mine >"$image/stamp"
	mkdir "$image"/{dev,proc,sys,run,var,srv,opt}
	for applet in cp ln mkdir setsid true; do
		ln -sf busybox "$image/bin/$applet"
	done
	: >"$image/etc/passwd"
	push_image races/mine:1
	make_arena "$BATS_FILE_TMPDIR/arena"
}

# Each test has a tree of root's, of which the user may read some names and no secret.
setup() {
	mark_logs
	theirs=$(mktemp -d /var/tmp/brolga-theirs.XXXXXX)
	secret=secret-${theirs##*.}
	cp -a "$BATS_FILE_TMPDIR/image" "$theirs/image"
	echo "$secret" | tee "$theirs/secret" >"$theirs/image/stamp"
	chmod 0600 "$theirs/secret"
	install -d -m 0755 "$theirs/open"
	# Files that everyone could read below a directory that is closed.
	install -d -m 0700 "$theirs/private"
	mv "$theirs/image" "$theirs/private/root"
	cp "$theirs/private/root/stamp" "$theirs/private/file"
	printf 'image = "%s"\nenv = { STAMP = "%s" }\n' "$ref" "$secret" >"$theirs/private/edf.toml"
	mksquashfs "$theirs/private/root" "$theirs/private/app.sqsh" -quiet -no-progress >/dev/null
	mkimage --env PATH=/bin --to "oci-archive:$theirs/private/app.tar" theirs:1 "$theirs/private/root" >/dev/null
	mkdir "$theirs/private/layout"
	tar -C "$theirs/private/layout" -xf "$theirs/private/app.tar"
	chmod 0755 "$theirs"
	chmod -R a+rX "$theirs/private"/*
	dropper=''
	note_host_mounts
}

teardown() {
	dump_logs_on_failure
	stop_races
	stopped_server | xargs -r kill -CONT
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	restore_site_config
	unmount_arena
	rm -rf "$theirs" "${made_below:-}" "$user_home/races"
}

# Other clusters of the machine have mounts of their own.
no_mounts_of_ours() { ! new_host_mounts | grep -E "races|$user_home|$BROLGA_CLUSTER_DIR|$theirs"; }

unmount_arena() {
	local at
	for at in ${mounted:-}; do
		umount --lazy "$at"
	done
	mounted=''
}

# All of root's tree, with everything that root could change by mistake.
tree() { find "$theirs" -printf '%P %y %m %U %i %s %n %T@ %C@ %l\n' | sort; }

# make_arena DIRECTORY: what the user names in options.
make_arena() {
	local name
	mkdir -p "$1"/{links,src,cwd,saves,saves2,tree/d,d,layout,layout2}
	for name in root "${special[@]}"; do
		cp -a "$BATS_FILE_TMPDIR/image" "$1/$name"
	done
	echo mine | tee "$1/src/file" "$1/cwd/file" "$1/file" >"$1/saves2/x.sqsh"
	printf 'image = "%s"\nenv = { STAMP = "mine" }\n' "$ref" >"$1/edf.toml"
	mksquashfs "$1/root" "$1/app.sqsh" -quiet -no-progress >/dev/null
	mkimage --env PATH=/bin --to "oci-archive:$1/app.tar" mine:1 "$1/root" >/dev/null
	tar -C "$1/layout" -xf "$1/app.tar"
	tar -C "$1/layout2" -xf "$1/app.tar"
	chown -hR "$BROLGA_TEST_USER:" "$1"
}

# pair NAME TARGET: NAME in the arena is exchanged with a link to TARGET.
pair() {
	local link=links/${#pairs[@]}
	as_user ln -s "$2" "$arena/$link"
	pairs+=("$arena/$1" "$arena/$link")
}

# A special name of an image is exchanged with two links: to a directory of root's
# that is mounted in the container, where root could make things, and to one that is
# closed to the user.
pair_all() {
	local name
	pairs=()
	pair root "$theirs/private/root"
	pair src "$theirs/private"
	pair file "$theirs/secret"
	pair edf.toml "$theirs/private/edf.toml"
	pair app.sqsh "$theirs/private/app.sqsh"
	pair app.tar "$theirs/private/app.tar"
	pair layout "$theirs/private/layout"
	pair layout2/blobs "$theirs/private/layout/blobs"
	pair layout2/index.json "$theirs/private/layout/index.json"
	pair saves "$theirs/open"
	pair saves2/x.sqsh "$theirs/secret"
	pair cwd "$theirs/private"
	pair tree/d "../../../../../../../../..$theirs/open"
	for name in "${special[@]}"; do
		pair "$name/$name" "/opt/made-by-$name"
		pair "$name/$name" "$theirs/private"
	done
	pair root/etc/passwd "$theirs/secret"
}

# start_exchanging: until stop_races.
start_exchanging() {
	as_user "$swapper" "$arena/stop" "${pairs[@]}" >"$BATS_TEST_TMPDIR/exchanges" 3>&- &
	exchanging=$!
	while sleep 0.1; do echo 2 >/proc/sys/vm/drop_caches; done 3>&- &
	dropper=$!
}

stop_races() {
	[[ -n $dropper ]] || return 0
	kill "$dropper"
	as_user touch "$arena/stop"
	wait "$dropper" "$exchanging" || true
	dropper=''
}

# steps KIND OPTION...: several steps at once, which show all that they can.
# shellcheck disable=SC2016 # for the shell of the step
steps() {
	local kind=$1 i
	shift
	for ((i = 1; i <= each; i++)); do
		{
			status=0
			as_user timeout --kill-after=5 100 srun -w "n$((i % BROLGA_TEST_NODES + 1))" "$@" sh -c '
				echo "stamp $STAMP"; cd /
				cat stamp etc/passwd mnt/e file */file */*/file opt/*; ls -la dev etc mnt mnt/* opt tmp
				cd "$OLDPWD" && cat file' >"$BATS_TEST_TMPDIR/$kind.$i" 2>&1 || status=$?
			echo "status $status" >>"$BATS_TEST_TMPDIR/$kind.$i"
		} 3>&- &
		running+=($!)
	done
	wait "${running[@]}"
	running=()
	steps=$((steps + each))
	unharmed "$kind"
}

# No file of root's has been printed, made or changed, and each step has ended in time.
unharmed() {
	local said=$BATS_TEST_TMPDIR/$1
	! grep -H "$secret" "$said".* || fail "$1: a secret was shown"
	! grep -lx 'status \(124\|137\)' "$said".* || fail "$1: hangs: $(cat "$said".*)"
	! grep -iE 'panic|goroutine|internal error|segmentation' "$said".* || fail "$1: $(cat "$said".*)"
	diff "$BATS_TEST_TMPDIR/before" <(tree) >&2 || fail "$1: something of root's was made or changed"
}

# race DIRECTORY: steps of all kinds, with names below it.
race() {
	local at=$1 name
	running=() steps=0
	as_user cp -a "$BATS_FILE_TMPDIR/arena" "$1"
	tree >"$BATS_TEST_TMPDIR/before"
	arena=$1
	pair_all
	start_exchanging
	steps image --container-image="dir:$at/root"
	for name in "${special[@]}"; do
		steps "$name" --container-image="dir:$at/$name" --container-mounts="$theirs/open:/opt"
	done
	steps source --container-image="$ref" --container-mounts="$at/src:/mnt/e,$at/file:/mnt/file"
	steps destination --container-image="dir:$at/mnt" --container-mounts="$theirs/open:/opt,$at/file:/mnt/a/b,$at/d:/mnt/c"
	steps below --container-image="$ref" --container-mounts="$at/tree:/mnt/e,$at/file:/mnt/e/d/x/file,/usr:/mnt/e/d/usr"
	steps edf --environment="$at/edf.toml"
	steps layout --container-image="oci:$at/layout"
	steps blobs --container-image="oci:$at/layout2"
	steps archive --container-image="oci-archive:$at/app.tar"
	steps squashfs --container-image="$at/app.sqsh" --container-mounts="$at/app.sqsh:/mnt/e:sqsh"
	steps save --container-image="$ref" --container-save="$at/saves/x-%n.sqsh"
	steps save-over --container-image="$ref" --container-save="$at/saves2/x.sqsh"
	steps cwd --container-image="$ref" --chdir="$at/cwd" --container-mounts="$at:$at"
	steps workdir --container-image="$ref" --container-workdir="$at/cwd" --container-mounts="$at:$at"
	stop_races
	# The race was one: both had their turns.
	(($(<"$BATS_TEST_TMPDIR/exchanges") > steps * 100)) || fail "only $(<"$BATS_TEST_TMPDIR/exchanges") exchanges"
	cat "$BATS_TEST_TMPDIR"/*.[0-9]* | grep -qx mine || fail "no step saw a file of the user's"
	cat "$BATS_TEST_TMPDIR"/*.[0-9]* | grep -q 'brolga: error: ' || fail "no step met a link"
	unmount_arena
	retry 20 no_mounts_of_ours || fail "mounted on the host: $(new_host_mounts)"
	expect_no_leftovers
	nodes_idle
}

@test "races: links to files of root's, on ext4" {
	race "$user_home/races"
}

@test "races: links to files of root's, on tmpfs" {
	made_below=$(mktemp -d /dev/shm/brolga-races.XXXXXX)
	chown "$BROLGA_TEST_USER:" "$made_below"
	race "$made_below/races"
}

@test "races: links to files of root's, on an overlay on an overlay" {
	made_below=$(mktemp -d /var/tmp/brolga-races.XXXXXX)
	mkdir "$made_below"/{lower,upper1,work1,middle,upper2,work2,top}
	chown "$BROLGA_TEST_USER:" "$made_below"/{lower,upper1,upper2}
	chmod 0755 "$made_below"
	mount -t overlay -o "lowerdir=$made_below/lower,upperdir=$made_below/upper1,workdir=$made_below/work1" races "$made_below/middle"
	mount -t overlay -o "lowerdir=$made_below/middle,upperdir=$made_below/upper2,workdir=$made_below/work2" races "$made_below/top"
	mounted="$made_below/top $made_below/middle"
	race "$made_below/top/races"
}

@test "races: links to files of root's, on FUSE" {
	made_below=$(mktemp -d /var/tmp/brolga-races.XXXXXX)
	mkdir "$made_below"/{lower,upper,work,top}
	chown "$BROLGA_TEST_USER:" "$made_below"/*
	chmod 0755 "$made_below"
	exec 9<>/dev/fuse
	options=fd=9,rootmode=40000,allow_other,default_permissions
	options+=,user_id=$(id -u "$BROLGA_TEST_USER"),group_id=$(id -g "$BROLGA_TEST_USER")
	mount --internal-only -t fuse -o "$options" races "$made_below/top"
	mounted=$made_below/top
	cd "$made_below"
	setpriv --reuid="$BROLGA_TEST_USER" --regid="$BROLGA_TEST_USER" --init-groups \
		fuse-overlayfs -f -o lowerdir=lower,upperdir=upper,workdir=work /dev/fd/9 3>&- &
	exec 9>&-
	cd "$repo"
	race "$made_below/top/races"
}

# A squashfuse that its user has stopped. The helper waits for it, when it has looked
# at some names of the image and not at others.
stopped_server() { pgrep -u "$BROLGA_TEST_USER" --runstates T -f "^/bin/bash $user_home/races/stopped"; }

# exchange_once A B
exchange_once() { as_user sh -c 'mv -T "$1" "$1.x" && mv -T "$2" "$1" && mv -T "$1.x" "$2"' sh "$@"; }

# Makes a link of a name of the image while the helper waits, and lets it go on.
exchange_meanwhile() {
	retry 20 stopped_server >/dev/null || return
	exchange_once "$@"
	echo 2 >/proc/sys/vm/drop_caches
	stopped_server | xargs kill -CONT
}

@test "races: special names of an image, exchanged while the helper waits" {
	local name target at=$user_home/races
	as_user cp -a "$BATS_FILE_TMPDIR/arena" "$at"
	as_user tee "$at/stopped" >/dev/null <<<$'#!/bin/bash\nkill -STOP $$\nexec /usr/bin/squashfuse_ll "$@"'
	chmod 0755 "$at/stopped"
	site_config "squashfuse = \"$at/stopped\""
	tree >"$BATS_TEST_TMPDIR/before"
	running=() each=1 steps=0
	for name in "${special[@]}"; do
		for target in "/opt/made-by-$name" "$theirs/private"; do
			as_user ln -sfn "$target" "$at/links/link"
			exchange_meanwhile "$at/$name/$name" "$at/links/link" 3>&- &
			exchanger=$!
			steps "$name" --container-image="dir:$at/$name" --container-mounts="$theirs/open:/opt,$at/app.sqsh:/srv:sqsh"
			wait "$exchanger"
			[[ -L $at/$name/$name ]] || fail "$name was not exchanged"
			exchange_once "$at/$name/$name" "$at/links/link"
		done
	done
	expect_no_leftovers
	nodes_idle
}

# On the nodes root reads what the user has pulled, and the store's owner converts it.
@test "races: directories of the cache, exchanged with root's" {
	local i
	as_user mkdir -p races/links
	site_config 'cache = "{home}/races/cache"'
	as_user brolga pull --quiet "$ref"
	tree >"$BATS_TEST_TMPDIR/before"
	arena=$user_home/races pairs=() running=() steps=0
	pair cache "$theirs/open"
	pair cache/blobs "$theirs/private/layout/blobs"
	pair cache/blobs/sha256 "$theirs/private/layout/blobs/sha256"
	pair cache/lease "$theirs/open"
	start_exchanging
	for i in 1 2 3 4; do
		cp -a "$BATS_FILE_TMPDIR/image" "$BATS_TEST_TMPDIR/image"
		echo "$i" >"$BATS_TEST_TMPDIR/image/number"
		fresh=$(mkimage --env PATH=/bin "races/fresh:$i" "$BATS_TEST_TMPDIR/image")
		rm -r "$BATS_TEST_TMPDIR/image"
		steps "cache$i" --container-image="$fresh"
	done
	stop_races
	# The store has the content of the images, and no other.
	for i in 1 2 3 4; do
		rm -rf "$user_home/races/cache"
		run_ok crun --container-image="$BROLGA_TEST_REGISTRY/races/fresh:$i" cat /stamp /number
		expect_line mine
		expect_line "$i"
	done
	expect_no_leftovers
	nodes_idle
}

# The process that saves a container may read everything, so it must follow no link.
@test "races: what a task has left behind in its container, exchanged while it is saved" {
	local option i
	as_user mkdir races
	as_user cp "$swapper" races/swapper
	tree >"$BATS_TEST_TMPDIR/before"
	for option in --no-container-remap-root --container-remap-root; do
		for i in 1 2 3; do
			rm -f "$user_home/races/saved.sqsh" "$user_home/races/stop"
			# The program goes on when the task has ended, while the container is saved.
			run crun --container-image="$ref" "$option" --container-save=races/saved.sqsh sh -c "
				mkdir /tmp/a /tmp/a/d1 /tmp/a/d2 /tmp/links; cd /tmp; echo mine >a/d1/file; cp a/d1/file a/file
				for n in 1 2 3 4 5 6 7 8 9; do cp -r a more\$n; done
				ln -s $theirs/private links/1; ln -s ../../../../../../../../$theirs/private links/2; ln -s $theirs/secret links/3
				setsid ~/races/swapper ~/races/stop a/d1 links/1 a/d2 links/2 a/file links/3 >/dev/null 2>&1 </dev/null &
				until [ -L a/d1 ]; do :; done"
			as_user touch races/stop
			((status != 124)) || fail "hangs: $output"
			((status != 0)) || [[ -e $user_home/races/saved.sqsh ]] || fail "nothing was saved: $output"
			[[ ! -e $user_home/races/saved.sqsh ]] || {
				rm -rf "$BATS_TEST_TMPDIR/saved"
				unsquashfs -quiet -no-progress -dest "$BATS_TEST_TMPDIR/saved" "$user_home/races/saved.sqsh" >/dev/null
				! grep -r "$secret" "$BATS_TEST_TMPDIR/saved" || fail "a secret was saved"
				saved=$((${saved:-0} + 1))
			}
			diff "$BATS_TEST_TMPDIR/before" <(tree) >&2 || fail "something of root's was made or changed"
		done
	done
	((saved > 0)) || fail "never saved: $output"
	expect_no_leftovers
	nodes_idle
}
