# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For tests of how images and containers come and go: "load ../lib/lifecycle" after
# "load ../lib/helpers". Its setup and teardown undo all that these functions do.
#
#   fresh_image [MEGABYTES]      push an image that nobody has, print its
#                                reference; it has /stamp, bash and coreutils
#   store_file REF               where the store keeps that image
#   in_background CMD...         start it; $background is its pid, background_ends
#                                waits for it and sets status and output
#   $until_go                    a command: tasks say that they run, and wait ...
#   tasks_run N                  ... wait until N of them have said so ...
#   go_on                        ... and let them end
#   at_submission CMD...         in_background for a held job: when it returns, all
#                                is done that happens on the submitting host
#   release_jobs                 let held jobs start
#   site_config LINE             add a line to the site's configuration
#   slow_conversions             conversions stop half way and leave a mark ...
#   conversions_stuck [N]        ... wait until N of them have ...
#   fast_conversions             ... they and all later ones go on
#   conversions                  number of times tar2sqfs was run
#   slow_registry BYTES          sets $slow, a registry that sends no more than
#                                so many bytes per connection, until fast_registry
#   helpers / steps / tasks_waiting  pids of helpers, of slurmstepd, of tasks that
#                                wait for a helper
#   kill_orphans                 tasks whose slurmstepd is gone
#   expect_clean                 nothing is left and all nodes are idle

tools=$BROLGA_CLUSTER_DIR/tools

setup() {
	mark_logs
	install -d -o brolga "$tools"
	cp -p "$BROLGA_CLUSTER_DIR/etc/brolga.toml" "$tools/brolga.toml"
	as_user rm -f started go
	[[ ! -d $user_home/.cache/brolga ]] || partial_blobs | xargs -r rm
	background=
}

teardown() {
	dump_logs_on_failure
	fast_conversions
	fast_registry
	[[ -z $background ]] || kill "$background" 2>/dev/null || true
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	kill_orphans
	put "$tools/brolga.toml" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
	[[ ! -e $tools/proxy.pid ]] || kill "$(<"$tools/proxy.pid")" || true
	rm -rf "$tools"
}

# This machine's programs, because they are at hand and small.
make_tree() {
	local dir=$1 program lib
	mkdir -p "$dir"/{bin,etc,tmp}
	chmod 0755 "$dir"
	chmod 1777 "$dir/tmp"
	for program in bash cat chmod id ls mkdir readlink sleep stat touch; do
		program=$(type -P "$program")
		install -D "$program" "$dir/bin/${program##*/}"
		for lib in $(ldd "$program" | grep -oE '/[^ ]+'); do
			[[ -e $dir$lib ]] || install -D "$lib" "$dir$lib"
		done
	done
	ln -s bash "$dir/bin/sh"
}

fresh_image() {
	local dir name
	dir=$(mktemp -d "$BATS_TEST_TMPDIR/image.XXXXXX")
	name=life/$(tr '[:upper:].' '[:lower:]-' <<<"${dir##*.}")-$BATS_TEST_NUMBER-$$
	make_tree "$dir"
	printf '%s\n' "$name" >"$dir/stamp"
	(($# == 0)) || head -c "${1}M" /dev/urandom >"$dir/bulk"
	mkimage "$name" "$dir"
	rm -rf "$dir"
}

store_file() {
	local digest
	digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$1")
	printf '%s\n' "$BROLGA_CLUSTER_DIR/store/sha256/${digest#sha256:}.squashfs"
}

store_drafts() { find "$BROLGA_CLUSTER_DIR/store" -name '.tmp-*'; }

no_drafts() { [[ -z $(store_drafts) ]]; }

partial_blobs() { find "$user_home/.cache/brolga" -name '.partial-*'; }

forget_cache() { as_user rm -rf .cache/brolga; }

in_background() {
	"$@" >"$BATS_TEST_TMPDIR/background" 2>&1 3>&- 4>&- &
	background=$!
}

# shellcheck disable=SC2034 # for the test, as bats' "run" sets them
background_ends() {
	status=0
	retry "${1:-30}" not_alive "$background" || fail "still runs: $background"
	wait "$background" || status=$?
	background=
	output=$(<"$BATS_TEST_TMPDIR/background")
}

# A zombie is not alive; "wait" takes its status.
not_alive() { [[ ! -e /proc/$1/exe || -z $(readlink "/proc/$1/exe") ]]; }

# shellcheck disable=SC2016,SC2034 # for the shell of the task
until_go='echo "$SLURMD_NODENAME" >>started; while [[ ! -e go ]]; do sleep 0.1; done'

tasks_run() {
	retry 30 has_lines "$user_home/started" "$1" || fail "the tasks do not run: $(cat "$BATS_TEST_TMPDIR/background")"
}

go_on() { as_user touch go; }

has_lines() { [[ -e $1 ]] && (($(wc -l <"$1") >= $2)); }

# Keys of the file's first part only: there are no tables in it.
site_config() { printf '%s\n' "$1" >>"$BROLGA_CLUSTER_DIR/etc/brolga.toml"; }

# All conversions leave a mark in $tools/log; slow ones write the beginning of
# their output and wait there.
count_conversions() {
	printf '#!/bin/bash\n' >"$tools/tar2sqfs"
	cat >>"$tools/tar2sqfs" <<-SCRIPT
		echo "\${!#}" >>$tools/log
		[[ ! -e $tools/slow ]] || head -c 100000 /dev/urandom >"\${!#}"
		while [[ -e $tools/slow ]]; do sleep 0.05; done
		rm -f "\${!#}" 2>/dev/null # where it may; brolga convert allows to overwrite it
		exec /usr/bin/tar2sqfs "\$@"
	SCRIPT
	chmod 0755 "$tools/tar2sqfs"
	# In front of all tables. The mark needs the second.
	grep -q '^tar2sqfs' "$BROLGA_CLUSTER_DIR/etc/brolga.toml" ||
		sed -i "1i tar2sqfs = \"$tools/tar2sqfs\"\nsandbox.write = [\"$tools\"]" "$BROLGA_CLUSTER_DIR/etc/brolga.toml"
}

slow_conversions() {
	touch "$tools/slow"
	count_conversions
}

fast_conversions() { rm -f "$tools/slow"; }

conversions() { if [[ -e $tools/log ]]; then wc -l <"$tools/log"; else echo 0; fi; }

conversions_stuck() {
	retry 30 conversions_are "${1:-1}" || fail "no conversion: $(cat "$BATS_TEST_TMPDIR/background")"
	retry 5 drafts_are "${1:-1}" || fail "no draft in the store"
}

conversions_are() { (($(conversions) >= $1)); }

drafts_are() { (($(store_drafts | wc -l) >= $1)); }

slow_registry() {
	"$repo/integration/programs/hold-proxy" "$BROLGA_TEST_REGISTRY" "$1" "$tools/proxy.port" "$tools/gate" \
		>/dev/null 2>&1 3>&- &
	printf '%s\n' "$!" >"$tools/proxy.pid"
	retry 10 test -e "$tools/proxy.port"
	slow=127.0.0.1:$(<"$tools/proxy.port")
}

fast_registry() { touch "$tools/gate"; }

# through_slow REF: the same image, as the slow registry has it.
through_slow() { printf '%s\n' "$slow/${1#*/}"; }

pull_stuck() { retry 30 partial_of_size "${1:-1}" || fail "no download has begun"; }

partial_of_size() {
	[[ -n $(find "$user_home/.cache/brolga/blobs" -name '.partial-*' -size "+$(($1 - 1))c" 2>/dev/null) ]]
}

# our_programs PATH [ARGUMENT]: pids of this cluster's instances.
our_programs() {
	local proc
	for proc in /proc/[0-9]*; do
		[[ $(readlink "$proc/exe") == "$BROLGA_CLUSTER_DIR/prefix/$1" ]] || continue
		[[ $(tr '\0' ' ' <"$proc/cmdline") == *"${2:-}"* ]] || continue
		printf '%s\n' "${proc#/proc/}"
	done 2>/dev/null
}

helpers() { our_programs libexec/brolga/brolga-helper step; }

# slurmstepds NAME: of this cluster. Tasks that wait for the helper are forks of
# slurmstepd that have a name of their own.
slurmstepds() {
	local proc
	for proc in /proc/[0-9]*; do
		! is_slurmstepd "$1" "$proc" || printf '%s\n' "${proc#/proc/}"
	done 2>/dev/null
}

# Debian's program is slurmstepd-wlm.
is_slurmstepd() {
	[[ $(cat "$2/comm") == "$1" && $(readlink "$2/exe") == */slurmstepd* ]] &&
		find "$2/fd" -lname "$BROLGA_CLUSTER_DIR/*" -print -quit | grep -q .
}

steps() { slurmstepds slurmstepd; }

tasks_waiting() { slurmstepds brolga-task; }

hold_registry() { rm -f "$tools/gate"; }

tar2sqfs_running() { pgrep -f "^/bin/bash $tools/tar2sqfs "; }

# at_submission CMD...: in_background for a held job, which has done all that
# happens on the submitting host.
at_submission() {
	in_background "$@"
	retry 30 jobs_wait || fail "no job was submitted: $(cat "$BATS_TEST_TMPDIR/background")"
}

jobs_wait() { [[ -n $(squeue --noheader --user "$BROLGA_TEST_USER" --states PENDING) ]]; }

release_jobs() {
	local job
	for job in $(squeue --noheader --user "$BROLGA_TEST_USER" --states PENDING --format %i); do
		scontrol release "$job"
	done
}

# Slurm kills what is left of a step in its own way and time; here the test does.
kill_orphans() {
	local pid
	for pid in $(orphans); do
		kill -KILL "$pid" 2>/dev/null || true
	done
}

# Processes come and go meanwhile, so nothing here may count as a failure.
orphans() {
	local proc
	for proc in /proc/[0-9]*; do
		if grep -qE '^PPid:[[:space:]]1$' "$proc/status" && is_task "$proc"; then
			printf '%s\n' "${proc#/proc/}"
		fi
	done 2>/dev/null || true
}

is_task() { [[ $(cat "$1/comm") != slurm* ]] && { grep -qzxF "SLURM_CONF=$SLURM_CONF" "$1/environ" || is_slurmstepd brolga-task "$1"; }; }

expect_clean() {
	expect_no_leftovers
	nodes_idle
	# Those of conversions may be another cluster's: integration/cgroup/convert.bats looks.
	[[ -z $(find /sys/fs/cgroup -name '*brolga*' ! -name 'brolga-convert-*' -print -quit) ]] || fail "a cgroup is left"
	retry 5 no_workers || fail "still runs: $(workers)"
}

# Programs that ours have started, as the user or as the store owner.
workers() { pgrep -af "$BROLGA_CLUSTER_DIR/(store/sha256|tools/tar2sqfs)"; }

no_workers() { ! workers >/dev/null; }
