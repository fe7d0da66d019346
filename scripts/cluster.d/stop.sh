# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Ends what one cluster started, and nothing else: a process counts as ours by
# its pid file and command line, by its program lying below the state
# directory, or by a file it holds open there, never by its name alone.
# Sourced by scripts/cluster.

stop_cluster() {
	if [[ ! -e $dir ]]; then
		remove_users
		say "nothing in $dir"
		return 0
	fi
	[[ -e $dir/.brolga-cluster ]] || die "$dir is not a cluster's directory"
	cancel_jobs
	stop_daemons 'slurmd.*' slurmctld
	kill_strays
	stop_daemons private-registry registry munged
	unmount_all
	remove_cgroups
	rm -rf --one-file-system "$dir"
	remove_users
	say "down: $dir"
}

cancel_jobs() {
	export SLURM_CONF=$dir/etc/slurm.conf
	[[ -f $SLURM_CONF ]] && is_ours slurmctld || return 0
	timeout 5 scancel --partition=debug 2>/dev/null || return 0
	wait_for 8 "the end of all jobs" no_jobs || true
}

no_jobs() { [[ -z $(timeout 5 squeue --noheader) ]]; }

# is_ours NAME: does the process of the pid file still exist, and is it the one?
# Every daemon has $dir on its command line or in its environment.
is_ours() {
	local pid
	pid=$(cat "$dir/pid/$1.pid" 2>/dev/null) || return 1
	grep -qszF "$dir/" "/proc/$pid/cmdline" "/proc/$pid/environ"
}

stop_daemons() {
	local pattern file name
	for pattern in "$@"; do
		for file in "$dir"/pid/$pattern.pid; do
			name=$(basename "$file" .pid)
			is_ours "$name" || continue
			kill "$(<"$file")" 2>/dev/null || true
		done
	done
	for pattern in "$@"; do
		for file in "$dir"/pid/$pattern.pid; do
			name=$(basename "$file" .pid)
			# munged sometimes sleeps through it.
			wait_for 4 "the end of $name" not_ours "$name" 2>/dev/null ||
				kill -KILL "$(<"$file")" || true
		done
	done
}

not_ours() { ! is_ours "$1"; }

# Steps outlive slurmd by design, and a step killed hard leaves tasks behind.
# Debian's slurmstepd is slurmstepd-wlm.
kill_strays() {
	local pids
	for _ in 1 2 3; do
		mapfile -t pids < <(strays)
		((${#pids[@]})) || return 0
		kill -KILL "${pids[@]}" 2>/dev/null || true
		sleep 0.2
	done
	say "processes remain: ${pids[*]}" >&2
}

strays() {
	local proc exe
	for proc in /proc/[0-9]*; do
		exe=$(readlink "$proc/exe") || continue
		if [[ $exe == "$dir"/* ]] || is_task "$proc" ||
			{ [[ ${exe##*/} == slurmstepd* ]] && holds_our_file "$proc"; }; then
			printf '%s\n' "${proc#/proc/}"
		fi
	done
}

# A developer's shell has our SLURM_CONF too; only tasks have the node's name.
is_task() {
	grep -qzxF "SLURM_CONF=$dir/etc/slurm.conf" "$1/environ" 2>/dev/null &&
		grep -qz '^SLURMD_NODENAME=' "$1/environ" 2>/dev/null
}

holds_our_file() {
	[[ -n $(find "$1/fd" -lname "$dir/*" -print -quit 2>/dev/null) ]]
}

# What job_container mounted, the deepest first, and images still attached.
unmount_all() {
	local mount loop
	while read -r mount; do
		umount --lazy "$mount" || say "$mount stays mounted" >&2
	done < <(awk -v d="$dir/" 'index($5, d) == 1 {print $5}' /proc/self/mountinfo | tac)
	for loop in /sys/block/loop*/loop/backing_file; do
		[[ -e $loop && $(<"$loop") == "$dir"/* ]] || continue
		loop=${loop#/sys/block/}
		losetup --detach "/dev/${loop%%/*}" || true
	done
}

# Slurm leaves those of its nodes behind. The kernel refuses to remove one that
# is in use, by another cluster for example.
remove_cgroups() {
	local top
	grep -qx 'ProctrackType=proctrack/cgroup' "$dir/etc/slurm.conf" 2>/dev/null || return 0
	for top in /sys/fs/cgroup/*/slurm_n[0-9]*; do
		[[ ! -d $top ]] || find "$top" -depth -type d -exec rmdir {} + 2>/dev/null || true
	done
}
