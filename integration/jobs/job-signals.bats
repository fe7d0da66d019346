#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Signals of Slurm's and of users arrive in the program, once, also where a
# launcher stands between them because the container has a process namespace.

bats_require_minimum_version 1.5.0
load ../lib/helpers
load ../lib/images

in_image=(--container-image="$BROLGA_TEST_IMAGE")

# A program that writes down its signals, each with a number that counts them.
counts='import os, signal, time
n = 0
def got(number, frame):
    global n
    n += 1
    print(signal.Signals(number).name, n, flush=True)
for s in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCONT):
    signal.signal(s, got)
print("ready", flush=True)
end = time.time() + 60
while time.time() < end and not os.path.exists("go"):
    time.sleep(0.05)'

setup() {
	mark_logs
	as_user rm -f go job.out
	as_user tee counts.py <<<"$counts" >/dev/null
}

teardown() {
	dump_logs_on_failure
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	rm -f "$user_home"/{go,job.out,counts.py}
}

# has LINE: the job has written that.
has() { grep -qxF -- "$1" "$user_home/job.out" 2>/dev/null; }

got() { retry 20 has "$1" || fail "no \"$1\" in: $(cat "$user_home/job.out")"; }

# step OPTION...: starts a step of counts.py, and waits for it.
step() {
	# The shell has what it starts in the background ignore Ctrl-C.
	as_user env --default-signal=INT timeout 80 srun "${in_image[@]}" "$@" --unbuffered python3 counts.py >"$user_home/job.out" 2>&1 3>&- &
	srun=$!
	got ready
	step=$(last_job).0
}

@test "signals: scancel --signal arrives once, with a launcher in between and without" {
	for option in --container-init --container-entrypoint --no-container-mpi; do
		as_user rm -f go job.out
		step "$option" -n2
		retry 10 twice ready
		as_user scancel --signal=USR1 "$step"
		retry 10 twice 'SIGUSR1 1' || fail "$(cat "$user_home/job.out")"
		as_user scancel --signal=USR2 "$step"
		retry 10 twice 'SIGUSR2 2' || fail "$(cat "$user_home/job.out")"
		as_user touch go
		wait "$srun"
		run cat "$user_home/job.out"
		refute_match ' [3-9]$'
	done
}

twice() { (($(grep -cx "$1" "$user_home/job.out") == 2)); }

@test "signals: a batch script gets those of scancel --batch and --full" {
	for which in --batch --full; do
		as_user rm -f go job.out
		run_ok as_user sbatch --parsable "${in_image[@]}" --container-init --output=job.out --wrap 'exec python3 counts.py'
		got ready
		as_user scancel "$which" --signal=USR1 "$output"
		got 'SIGUSR1 1'
		as_user scancel "$which" --signal=TERM "$output"
		got 'SIGTERM 2'
		as_user touch go
		retry 60 job_ended "$output"
	done
}

@test "signals: a batch script with a trap ends as it wants" {
	run_ok as_user sbatch --parsable "${in_image[@]}" --container-init --output=job.out \
		--wrap 'trap "echo trapped; exit 7" TERM; echo ready; while :; do sleep 0.1; done'
	got ready
	as_user scancel --batch --signal=TERM "$output"
	retry 60 job_ended "$output"
	got trapped
	[[ $(scontrol --oneliner show job "$output") == *' ExitCode=7:0 '* ]]
}

# Slurm counts times in minutes, so that this signal is due when the job begins, and
# looks twice a minute whether one is due.
@test "signals: the one before the end of the time arrives, in a batch script or in steps" {
	local job trap='trap "echo trapped; exit 7" USR1; echo ready; while :; do sleep 0.1; done'
	run_ok as_user sbatch --parsable --time=1 --signal=B:USR1@60 "${in_image[@]}" --container-init --output=job.out --wrap "$trap"
	job=$output
	run -7 as_user timeout 110 srun --time=1 --signal=USR1@60 "${in_image[@]}" --container-init bash -c "$trap"
	expect_line trapped
	retry 110 has trapped || fail "$(cat "$user_home/job.out")"
	retry 60 job_ended "$job"
	[[ $(scontrol --oneliner show job "$job") == *' ExitCode=7:0 '* ]]
}

@test "signals: scancel sends SIGTERM, once, and SIGKILL to who stays" {
	step --container-init
	as_user scancel "${step%.*}"
	got 'SIGCONT 1'
	got 'SIGTERM 2'
	wait "$srun" || true
	run cat "$user_home/job.out"
	refute_match 'SIGTERM 3'
	retry 10 none_counts || fail "$(pgrep -af counts.py)"
	expect_no_leftovers
	nodes_idle
}

none_counts() { ! pgrep -u "$BROLGA_TEST_USER" -f 'python3 counts.py' >/dev/null; }

@test "signals: Ctrl-C in front of srun interrupts the program" {
	step --container-init --disable-status
	kill -INT "$(pgrep -u "$BROLGA_TEST_USER" --oldest -x srun)"
	got 'SIGINT 1'
	as_user touch go
	wait "$srun" || true
	run cat "$user_home/job.out"
	refute_match 'SIGINT 2'
}

@test "signals: Ctrl-C typed in a terminal of the program's own interrupts it" {
	typed() {
		retry 20 has ready
		printf '\003'
		retry 20 has 'SIGINT 1'
		as_user touch go
		sleep 1 # until srun has read the end
	}
	typed | as_user timeout --foreground 60 script --quiet --return --command \
		"srun ${in_image[*]} --container-init --pty sh -c 'exec python3 counts.py >job.out'" /dev/null >"$BATS_TEST_TMPDIR/terminal"
	got 'SIGINT 1'
	run cat "$user_home/job.out"
	refute_match 'SIGINT 2'
}

@test "signals: SIGKILL for the task alone takes the program along" {
	step --container-init
	local task node
	node=$(squeue --noheader --steps --format='%i %N' | awk -v s="$step" '$1 == s {print $2}')
	task=$(SLURMD_NODENAME=$node scontrol listpids "${step%.*}" "$node" | awk '$4 == 0 {print $1}')
	kill -KILL "$task"
	status=0
	wait "$srun" || status=$?
	((status == 137)) || fail "status $status"
	retry 10 none_counts || fail "$(pgrep -af counts.py)"
	expect_no_leftovers
}

@test "signals: a program that ends by a signal has Slurm say which" {
	for option in --container-init --no-container-mpi; do
		run crun "${in_image[@]}" "$option" sh -c 'kill -SEGV $$'
		((status == 139)) || fail "$status: $output"
		expect_match 'Segmentation fault'
	done
}

@test "signals: a stopped step goes on" {
	step --container-init
	as_user scancel --signal=STOP "$step"
	retry 10 stopped || fail "it runs"
	as_user scancel --signal=CONT "$step"
	got 'SIGCONT 1'
	as_user touch go
	wait "$srun"
}

# D: frozen, by proctrack/cgroup.
stopped() { pgrep -u "$BROLGA_TEST_USER" --runstates T,D -f '^python3 counts.py' >/dev/null; }
