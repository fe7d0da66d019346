#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --x11: X clients in containers use the display of whoever submits. Slurm does not
# have it with proctrack/linuxproc.

load ../lib/helpers
load ../lib/images

setup_file() {
	cp "$SLURM_CONF" "$BATS_FILE_TMPDIR/slurm.conf"
	printf 'PrologFlags=X11\n' >>"$SLURM_CONF"
	scontrol reconfigure
	jobs_image=$("$repo/scripts/cluster" image jobs)
	as_user brolga pull --quiet "$jobs_image" >/dev/null
	# A display that wants a key, which the user has.
	local key
	key=$(mcookie)
	xauth -q -f "$BATS_FILE_TMPDIR/server" add :0 . "$key" 2>/dev/null
	Xvfb -displayfd 1 -auth "$BATS_FILE_TMPDIR/server" -nolisten tcp >"$BATS_FILE_TMPDIR/display" 2>"$BATS_FILE_TMPDIR/log" 3>&- &
	echo $! >"$BATS_FILE_TMPDIR/pid"
	retry 20 test -s "$BATS_FILE_TMPDIR/display"
	display=:$(<"$BATS_FILE_TMPDIR/display")
	as_user xauth -q add "$(hostname)/unix$display" . "$key" 2>/dev/null
	export jobs_image display
}

teardown_file() {
	kill "$(<"$BATS_FILE_TMPDIR/pid")" || true
	put "$BATS_FILE_TMPDIR/slurm.conf" "$SLURM_CONF"
	scontrol reconfigure
	rm -f "$user_home/.Xauthority"
}

# Says which display it is, and whether the server answers.
ask='echo "$DISPLAY $XAUTHORITY"; xset q | head -n1'

# x11 CMD...
x11() { as_user env DISPLAY="$display" timeout 60 "$@"; }

answered() { (($(grep -cx 'Keyboard Control:' <<<"$output") == $1)) || fail "$output"; }

@test "x11: a client of the image shows itself on the display of srun" {
	run_ok x11 srun --x11 --container-image="$jobs_image" sh -c "$ask"
	answered 1
	expect_match "^[^ ]+:[2-9][0-9]\.0 $BROLGA_CLUSTER_DIR/tmp/n[1-4]/\.Xauthority-"
	expect_no_leftovers
	nodes_idle
}

@test "x11: it does so without a home directory, and on all nodes" {
	run_ok x11 srun --x11=all -N2 -n2 --no-container-mount-home --container-image="$jobs_image" sh -c "$ask"
	answered 2
}

@test "x11: steps of salloc do so, too" {
	run_ok x11 salloc --quiet --x11 srun --x11 --container-image="$jobs_image" sh -c "$ask"
	answered 1
}

@test "x11: the key is the user's file, alone and read-only" {
	run_ok x11 srun --x11 --container-image="$jobs_image" sh -c \
		'stat -c "%a %U" "$XAUTHORITY"; ls -A "$(dirname "$XAUTHORITY")"; (: >>"$XAUTHORITY") || true'
	expect_line "600 $BROLGA_TEST_USER"
	(($(grep -c '^\.Xauthority-' <<<"$output") == 1)) || fail "$output"
	expect_match 'Read-only file system'
}

@test "x11: a key of the login node's, or nobody's, is no error and nothing is shown" {
	new_image
	push_image x11:1
	run_ok as_user env DISPLAY=:0 XAUTHORITY=/run/no-such-file srun --container-image="$ref" sh -c 'ls /run /root/x || true'
	refute_match 'brolga'
	run_fails as_user env DISPLAY=:0 XAUTHORITY=/etc/shadow srun --container-image="$ref" cat /etc/shadow
	expect_match 'Permission denied'
	run_ok as_user env XAUTHORITY=/etc/fstab srun --container-image="$ref" sh -c 'ls /etc'
	refute_match fstab
}
