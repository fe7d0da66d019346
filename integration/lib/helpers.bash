# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What all test files use. "load ../lib/helpers" gives them the cluster's environment, the functions below, and a setup and
# teardown that show the logs of a failed test. A file with a setup or teardown
# of its own calls mark_logs and dump_logs_on_failure there.
#
#   as_user CMD...                 run as the test user, as after a login
#   crun [OPTION]... CMD...        the same for "srun", with a time limit
#   run_ok CMD... / run_fails CMD...  bats' run, and the status is checked
#   expect_line TEXT               $output has this line, Slurm's prefix aside
#   expect_match REGEX / refute_match REGEX   some / no line of $output matches
#   slurmd_debug LEVEL             srun's option for it, where users may give it
#   stepd NODE                     regex: how slurmstepd's lines begin there
#   expect_no_leftovers            no mount, loop device, process or file of ours
#   registry_requests [METHOD [PATH]]  requests since the test began (regexes)
#   nodes_idle                     every node is idle, none drained or down
#   note_host_mounts / expect_no_new_host_mounts  the host's mount table has no more
#                                  mounts than then; those that others make go again
#   put FILE TARGET                a copy takes the target's place in one step: Slurm's daemons
#                                  and epilogs read their configuration at any time
#   mkimage [OPTION]... NAME LAYER...  push an image, print its reference

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [[ -z ${BROLGA_TEST_REGISTRY:-} ]]; then
	eval "$("$repo/scripts/cluster" env)"
fi
user_home=$(getent passwd "$BROLGA_TEST_USER" | cut -d: -f6)
# Tests name every Slurm setting they depend on.
unset "${!SLURM_JOB@}" "${!SRUN_@}" "${!SBATCH_@}"

setup() { mark_logs; }
teardown() { dump_logs_on_failure; }

# as_user env NAME=VALUE CMD... adds to the environment, which is otherwise that
# of a fresh login: nothing of the test's own gets into a job. Nor does bats' own
# output, whose end bats waits for: what survives fails a test and hangs none.
as_user() (
	cd "$user_home" || exit
	exec runuser -u "$BROLGA_TEST_USER" -- env -i \
		HOME="$user_home" USER="$BROLGA_TEST_USER" LOGNAME="$BROLGA_TEST_USER" \
		SHELL=/bin/bash LANG=C.UTF-8 SLURM_CONF="$SLURM_CONF" \
		PATH="$BROLGA_CLUSTER_DIR/prefix/bin:/usr/local/bin:/usr/bin:/bin" "$@" 3>&-
)

crun() { as_user timeout --kill-after=5 "${CRUN_TIMEOUT:-180}" srun --time=5 "$@"; }

put() { cp -p "$1" "$2.new" && mv "$2.new" "$2"; }

mkimage() { "$repo/scripts/mkimage" "$@"; }

fail() {
	printf '%s\n' "$*" >&2
	return 1
}

# srun says so where a step of the job before it has not quite ended.
waiting='^srun: .*(step creation (temporarily|still) disabled|Step created for )'

# run_srun CMD...: bats' run, and what srun says of waiting is forgotten.
# shellcheck disable=SC2034 # for the test
run_srun() {
	run "$@"
	[[ $output =~ step\ creation ]] || return 0
	output=$(grep -vE "$waiting" <<<"$output" || true)
	mapfile -t lines < <(grep . <<<"$output" || true)
}

run_ok() {
	run_srun "$@"
	((status == 0)) || fail "status $status of: $*"$'\n'"$output"
}

run_fails() {
	run_srun "$@"
	((status != 0)) || fail "no failure of: $*"$'\n'"$output"
}

expect_line() {
	sed -E 's/^((srun|sbatch|salloc|slurmstepd(-[^:]+)?): |\[[-0-9T:.]+\] )(error: |info: )?//' <<<"$output" |
		grep -qxF -e "$1" || fail "no line: $1"$'\n'"in: $output"
}

expect_match() { grep -qE -e "$1" <<<"$output" || fail "no match: $1"$'\n'"in: $output"; }

# Since 26.05 they have the time, and no node.
stepd() { printf '^(slurmstepd-%s: |\\[[-0-9T:.]+\\] )' "$1"; }

# Since 26.05 root alone may ask for that.
slurmd_debug() { ! crun --slurmd-debug="$1" true >/dev/null 2>&1 || printf '%s\n' "--slurmd-debug=$1"; }

refute_match() {
	! grep -qE -e "$1" <<<"$output" || fail "match: $1"$'\n'"in: $output"
}

# retry SECONDS CMD...: the end of a step and of its loop device take a moment, and
# on a busy machine several times as long: what is waited for is sure to come.
retry() {
	local end=$((SECONDS + 4 * $1))
	shift
	until "$@"; do
		((SECONDS < end)) || return 1
		sleep 0.1
	done
}

expect_no_leftovers() {
	retry "${1:-30}" no_leftovers || fail "left over:"$'\n'"$(leftovers)"
}

no_leftovers() { [[ -z $(leftovers) ]]; }

leftovers() {
	local file
	# "cat" where a file may go meanwhile: after $(<file) the whole shell ends then.
	for file in /sys/block/loop*/loop/backing_file; do
		[[ -e $file ]] || continue
		case $(cat "$file") in
		"$BROLGA_CLUSTER_DIR"/* | "$user_home"/*) printf 'loop device %s: %s\n' "$file" "$(<"$file")" ;;
		esac
	done 2>/dev/null
	awk -v store="$BROLGA_CLUSTER_DIR/store" -v run="$BROLGA_CLUSTER_DIR/run" \
		'index($0, store) || index($0, run) {print "mount", FILENAME ":", $0}' \
		/proc/1/mountinfo /proc/self/mountinfo
	# A dead process nobody waits for has no exe link.
	for file in /proc/[0-9]*/exe; do
		[[ $(readlink "$file") != "$BROLGA_CLUSTER_DIR"/prefix/* ]] ||
			printf 'process %s: %s\n' "$file" "$(tr '\0' ' ' <"${file%exe}cmdline")"
	done 2>/dev/null
	# What hooks remember of images is meant to stay, and that a node has no named container.
	find "$BROLGA_CLUSTER_DIR/run" -mindepth 1 ! -type d ! -name '*.lock' ! -path '*/run/found/*' ! -path '*/run/unnamed/*' -printf 'file %p\n'
	find "$BROLGA_CLUSTER_DIR/named" -name '*.ext4' -printf 'file %p\n' 2>/dev/null || true
}

registry_requests() {
	log_since_mark registry.log | awk -v method="${1:-.}" -v path="${2:-.}" \
		'substr($6, 2) ~ method && $7 ~ path {n++} END {print n + 0}'
}

nodes_idle() {
	retry 30 nodes_idle_now || fail "$(sinfo --Node --format='%N %T %E')"
}

host_mounts() { cut -d' ' -f3- /proc/1/mountinfo | sort; }

note_host_mounts() { noted_mounts=$(host_mounts); }

# What the other lane's jobs have under /job-container/ stays as long as its cluster.
new_host_mounts() { comm -13 <(echo "$noted_mounts") <(host_mounts | grep -v /job-container/); }

no_new_host_mounts() { [[ -z $(new_host_mounts) ]]; }

expect_no_new_host_mounts() { retry 20 no_new_host_mounts || fail "mounted on the host: $(new_host_mounts)"; }

nodes_idle_now() {
	(($(sinfo --noheader --Node --format='%T' | grep -cx idle) == BROLGA_TEST_NODES))
}

mark_logs() {
	local file
	declare -gA log_mark=()
	for file in "$BROLGA_CLUSTER_DIR"/log/*; do
		log_mark[${file##*/}]=$(stat -c %s "$file")
	done
}

log_since_mark() {
	tail -c "+$((${log_mark[$1]:-0} + 1))" "$BROLGA_CLUSTER_DIR/log/$1"
}

dump_logs_on_failure() {
	local file name
	[[ -z ${BATS_TEST_COMPLETED:-} ]] || return 0
	for file in "$BROLGA_CLUSTER_DIR"/log/{slurmctld,slurmd,registry}*; do
		name=${file##*/}
		[[ -n $(log_since_mark "$name") ]] || continue
		printf '==> %s, since the test began <==\n' "$name"
		log_since_mark "$name" | tail -n 30
	done
}
