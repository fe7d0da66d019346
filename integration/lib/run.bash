# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the tests of "brolga run" use: "load ../lib/run" after "load ../lib/helpers".
#
#   brun [OPTION]... IMAGE CMD...   brolga run as the test user, as after a login
#   brun_in_terminal COMMAND        the same in a terminal, whose input is $input
#   $until_go / go_on               a shell command that waits, in the container, for the other
#   users_reach_files               what the site has in $BATS_FILE_TMPDIR is there for
#                                   users, too
#   expect_nothing_left             no process, mount or directory of a container

# As users have it in their shell's profile.
brun() { as_user BROLGA_CONFIG="$BROLGA_CONFIG" timeout --foreground --kill-after=5 60 brolga run "$@"; }

users_reach_files() { chmod a+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/file"; }

# shellcheck disable=SC2034 # for the test
# run_background ARGUMENT...: start "brolga run" and set $command to its process.
run_background() {
	rm -f "$user_home/go"
	(
		cd "$user_home" || exit
		exec setpriv --reuid="$BROLGA_TEST_USER" --regid="$BROLGA_TEST_USER" --init-groups env -i \
			HOME="$user_home" USER="$BROLGA_TEST_USER" PATH="$PATH" BROLGA_CONFIG="$BROLGA_CONFIG" \
			brolga run "$@" >"$BATS_TEST_TMPDIR/out" 2>&1 3>&-
	) &
	command=$!
}

# shellcheck disable=SC2016,SC2034 # for the shell in the container, which has the home directory
until_go='until [ -e "$HOME/go" ]; do sleep 0.1; done'
go_on() { as_user touch "$user_home/go"; }

# wait_for TEXT: until the command that runs in the background has printed it.
wait_for() { retry 20 grep -qsF -e "$1" "$BATS_TEST_TMPDIR/out" || fail "$(<"$BATS_TEST_TMPDIR/out")"; }

# Processes of the user's that a container leaves; a zombie has no arguments.
container_processes() {
	pgrep -u "$BROLGA_TEST_USER" -af '^(/[^ ]*/)?(squashfuse_ll -f|brolga-(launch|helper)|sleep 87[0-9]+)' || true
}

nothing_left() { [[ -z $(container_processes) ]]; }

expect_nothing_left() {
	retry 10 nothing_left || fail "left: $(container_processes)"
	[[ -z $(ls -A "$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/bundle") ]] || fail "the directory of bundles is not empty"
	expect_no_leftovers
}
