#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# What a task sees and is inside a container, and that everything else is as
# without one.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
}

teardown() {
	dump_logs_on_failure
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	[[ ! -e $BATS_TEST_TMPDIR/plugstack.conf ]] ||
		cp -p "$BATS_TEST_TMPDIR/plugstack.conf" "$BROLGA_CLUSTER_DIR/etc/plugstack.conf"
}

# same_as_plain [OPTION]... CMD...: the same status and output as without a
# container, numbers of jobs and processes aside. On idle nodes Slurm chooses the
# same ones each time.
same_as_plain() {
	local plain plain_status
	nodes_idle
	run crun "$@"
	plain=$(settled) plain_status=$status
	nodes_idle
	run crun "${in_image[@]}" "$@"
	((status == plain_status)) || fail "status $status, not $plain_status, of: $*"$'\n'"$output"
	[[ $(settled) == "$plain" ]] || fail "$(diff <(echo "$plain") <(settled))"
}

# What differs from one step to the next: the names of jobs, and the time that Slurm
# from 26.05 on begins its errors with.
without_numbers() { sed -E 's/\[[0-9]{4}-[-0-9T:.]+\]/[T]/g; s/^(SLURM_JOB_SLUID=).*/\1N/; s/[0-9]{3,}/N/g'; }

# Lines of different processes come in any order. What srun says of a node that it
# hears of twice, it says with and without us.
settled() { without_numbers <<<"$output" | sed -E '/you told me node [0-9]+ was down/d' | sort; }

# in_terminal CMD...: as the test user, with a terminal. What the test writes to
# standard input is typed.
in_terminal() {
	as_user timeout --foreground --kill-after=5 60 script --quiet --return --command "$(printf '%q ' "$@")" /dev/null |
		tr -d '\r\0'
	return "${PIPESTATUS[0]}"
}

# Processes of a step on this machine, slurmstepd itself that is.
slurmstepds() { pgrep -f "^slurmstepd: \[$1\]\$" || true; }

# Other clusters of this machine have the same test user.
running_srun() {
	pgrep -u "$BROLGA_TEST_USER" -x srun | while read -r pid; do
		! grep -qzxF "SLURM_CONF=$SLURM_CONF" "/proc/$pid/environ" || echo "$pid"
	done | head -n1
}

libraries_of() { grep -c libbrolga.so "/proc/$1/maps" || true; }

@test "a task is the user, with all groups and no privilege" {
	run_ok crun "${in_image[@]}" id
	[[ $output == "$(as_user id)" ]] || fail "$output"
	[[ $(grep -o , <<<"$output" | wc -l) -ge 3 ]] || fail "the test user needs supplementary groups: $output"
	run_ok crun "${in_image[@]}" sh -c 'grep -E "^(Cap|NoNewPrivs|[UG]id|Groups)" /proc/self/status'
	for set in Inh Prm Eff Bnd Amb; do
		expect_line "Cap$set:"$'\t'0000000000000000
	done
	expect_line "NoNewPrivs:"$'\t'1
	expect_line "$(as_user grep ^Uid /proc/self/status)"
	expect_line "$(as_user grep ^Gid /proc/self/status)"
	expect_line "$(as_user grep ^Groups /proc/self/status)"
}

@test "a setuid program of the image gains nothing" {
	run_ok crun "${in_image[@]}" sh -c 'ls -l /usr/local/bin/whoeuid; whoeuid'
	expect_match '^-rwsr-xr-x 1 root root '
	expect_line "uid=$(id -u "$BROLGA_TEST_USER") euid=$(id -u "$BROLGA_TEST_USER")"
}

@test "names of the image's own users stay, the job's user has the host's" {
	run_ok crun "${in_image[@]}" sh -c 'getent passwd root "$(id -u)"; getent group daemon; stat -c %U:%G /usr; echo ~'
	expect_match '^root:x:0:0:'
	expect_match "^$BROLGA_TEST_USER:[^:]*:$(id -u "$BROLGA_TEST_USER"):$(id -g "$BROLGA_TEST_USER"):[^:]*:$user_home:"
	expect_match '^daemon:'
	expect_line root:root
	expect_line "$user_home"
}

@test "files are the image's, not the host's" {
	new_image
	echo 'ID=brolga-test' >"$image/etc/os-release"
	push_image inside-release:1
	run_ok crun --container-image="$ref" cat /etc/os-release
	[[ $output == ID=brolga-test ]]
	run_fails grep brolga-test /etc/os-release
	run_ok crun "${in_image[@]}" sh -c 'echo $BROLGA_IMAGE; ls -d /opt/work; ls -d /etc/slurm* "$SLURM_CONF"; true'
	expect_line debian
	expect_line /opt/work
	expect_match "cannot access '$SLURM_CONF'"
	run_ok crun sh -c 'echo "<$BROLGA_IMAGE>"'
	[[ $output == "<>" ]]
}

@test "the host's variables enter and the image's win, but for those of Slurm and PMI" {
	new_image
	push_image --env BOTH=image --env OWN=image --env SLURM_PROCID=99 --env SLURM_OWN=image --env SLURMD_NODENAME=image \
		--env PMI_RANK=99 --env PMIX_RANK=99 --env BROLGA_CONTAINER_IMAGE=image --env 'ODD=a b=c;$(d)' inside-env:1
	run_ok as_user env BOTH=host HOST='a  b=c' srun -w n1 --mpi=pmi2 --ntasks=1 --container-image="$ref" env
	expect_line PATH=/bin
	expect_line BOTH=image
	expect_line OWN=image
	expect_line HOST='a  b=c'
	expect_line 'ODD=a b=c;$(d)'
	expect_line SLURM_PROCID=0
	expect_line SLURMD_NODENAME=n1
	expect_line HOME="$user_home"
	refute_match '^(SLURM_OWN|PMIX_RANK|BROLGA_CONTAINER_IMAGE)='
	refute_match '^PMI_RANK=99'
	expect_match '^PMI_FD='
}

@test "exit codes and signals are the same as without a container" {
	same_as_plain sh -c 'exit 0'
	same_as_plain sh -c 'exit 3'
	same_as_plain -N2 -n4 bash -c 'exit $((SLURM_PROCID % 2 * 9))'
	for signal in KILL TERM SEGV; do
		same_as_plain bash -c "kill -$signal \$\$"
	done
	((status != 0))
	expect_match "task 0: (Segmentation fault|Exited|Terminated)"
	same_as_plain no-such-command
	((status == 2))
	expect_match 'execve\(\): no-such-command: No such file or directory'
	same_as_plain /etc/passwd
	((status == 13))
	same_as_plain ./no-such-command
	nodes_idle
}

@test "a signal sent with scancel arrives in the program" {
	as_user rm -f ready
	as_user timeout 60 srun "${in_image[@]}" bash -c \
		'trap "echo got it; exit 9" USR1; touch ready; while :; do sleep 0.1; done' >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
	retry 20 test -e "$user_home/ready"
	as_user scancel --signal=USR1 "$(last_job).0"
	status=0
	wait $! || status=$?
	output=$(<"$BATS_TEST_TMPDIR/out")
	((status == 9))
	expect_line "got it"
}

@test "standard input, output and error are the program's" {
	printf 'a\0b\nlast line without end' >"$BATS_TEST_TMPDIR/input"
	crun "${in_image[@]}" cat <"$BATS_TEST_TMPDIR/input" >"$BATS_TEST_TMPDIR/output"
	cmp "$BATS_TEST_TMPDIR/input" "$BATS_TEST_TMPDIR/output"
	head -c 3000000 /dev/urandom >"$BATS_TEST_TMPDIR/input"
	crun "${in_image[@]}" sh -c 'cat; echo done >&2' <"$BATS_TEST_TMPDIR/input" >"$BATS_TEST_TMPDIR/output" 2>"$BATS_TEST_TMPDIR/error"
	cmp "$BATS_TEST_TMPDIR/input" "$BATS_TEST_TMPDIR/output"
	[[ $(<"$BATS_TEST_TMPDIR/error") == "done" ]]
}

@test "--label, --multi-prog and --output work" {
	run_ok crun "${in_image[@]}" --label -N2 -n2 sh -c 'echo $BROLGA_IMAGE $SLURM_PROCID'
	[[ $(sort <<<"$output") == $'0: debian 0\n1: debian 1' ]] || fail "$output"
	as_user tee programs >/dev/null <<-'CONF'
		0 sh -c 'echo first $BROLGA_IMAGE'
		1-3 python3 -c 'import sys; print(sys.argv[1:])' %t %o
	CONF
	run_ok crun "${in_image[@]}" -l -N2 -n4 --multi-prog programs
	[[ $(sort <<<"$output") == "0: first debian"$'\n'"1: ['1', '0']"$'\n'"2: ['2', '1']"$'\n'"3: ['3', '2']" ]] || fail "$output"
	run_ok crun "${in_image[@]}" -n2 --output=task.%t.out --error=task.%t.err sh -c 'echo $BROLGA_IMAGE $SLURM_PROCID; echo err >&2'
	[[ -z $output ]] || fail "$output"
	run_ok as_user cat task.0.out task.1.out task.0.err
	[[ $output == $'debian 0\ndebian 1\nerr' ]] || fail "$output"
}

@test "--pty gives the program a terminal" {
	run in_terminal srun "${in_image[@]}" --pty bash -c \
		'tty; ls -l "$(tty)"; test -t 0 -a -t 1 -a -t 2 && echo all; echo written >/dev/tty; exit 6' </dev/null
	((status == 6)) || fail "$output"
	expect_match '(^|@)/dev/pts/[0-9]+$'
	expect_match "^crw.* $BROLGA_TEST_USER .* /dev/pts/[0-9]+\$"
	expect_line all
	expect_line written
}

@test "an interactive shell reads what is typed" {
	run in_terminal srun "${in_image[@]}" --pty bash --norc <<<'echo "$BROLGA_IMAGE $((6 * 7))"; stty -a; exit 5'
	((status == 5)) || fail "$output"
	expect_line "debian 42"
	expect_match '^speed .* baud'
}

@test "python finds its compiled modules" {
	run_ok crun "${in_image[@]}" python3 -c 'import numpy; print(numpy.__file__, int(numpy.arange(1000).sum()))'
	expect_match '^/usr/lib/python3/dist-packages/numpy/.* 499500$'
}

@test "an MPI program of the image runs on all nodes" {
	run_ok crun "${in_image[@]}" --mpi=pmi2 -N4 --ntasks-per-node=2 mpi_hello
	((${#lines[@]} == 8))
	[[ $(grep -oE '^rank [0-9] of 8 ' <<<"$output" | sort -u | wc -l) == 8 ]] || fail "$output"
	[[ $(grep -cE ' sum 28$' <<<"$output") == 8 ]] || fail "$output"
}

@test "an image of one static program runs, without a shell and without a word of Slurm's" {
	run_ok crun --container-image="$BROLGA_TEST_SMALL_IMAGE" -N2 -n2 /hello one 'two words'
	run_ok crun --container-image="$BROLGA_TEST_SMALL_IMAGE" /hello one 'two words'
	expect_line "BROLGA_IMAGE: distroless"
	expect_line "PATH: /"
	expect_line "arg2: two words"
	expect_line "uid: $(id -u "$BROLGA_TEST_USER")"
	refute_match 'error|brolga:'
	# Found by the image's PATH.
	run_ok crun --container-image="$BROLGA_TEST_SMALL_IMAGE" hello
	run_fails crun --container-image="$BROLGA_TEST_SMALL_IMAGE" sh
}

@test "salloc: steps have their own image or the allocation's" {
	run_ok as_user salloc --quiet -w n1,n2 srun -N2 -n2 "${in_image[@]}" sh -c 'echo $BROLGA_IMAGE $SLURMD_NODENAME'
	[[ $(sort <<<"$output") == $'debian n1\ndebian n2' ]] || fail "$output"
	run_ok as_user salloc --quiet "${in_image[@]}" sh -c \
		'echo "here <$BROLGA_IMAGE>"; srun sh -c "echo \$BROLGA_IMAGE"; srun --container-image='"$BROLGA_TEST_SMALL_IMAGE"' /hello'
	expect_line 'here <>'
	expect_line debian
	expect_line 'BROLGA_IMAGE: distroless'
}

@test "the library is in srun for a container, and only then, and never in slurmstepd" {
	local kind options step
	as_user brolga pull --quiet "$BROLGA_TEST_IMAGE"
	for kind in plain container; do
		options=()
		[[ $kind == plain ]] || options=("${in_image[@]}")
		as_user rm -f ready go
		as_user timeout 60 srun "${options[@]}" sh -c 'touch ready; until [ -e go ]; do sleep 0.1; done' 3>&- &
		retry 20 test -e "$user_home/ready"
		step=$(slurmstepds "$(last_job).0")
		[[ -n $step ]] || fail "no slurmstepd"
		run libraries_of "$step"
		((output == 0))
		run libraries_of "$(running_srun)"
		if [[ $kind == plain ]]; then ((output == 0)); else ((output > 0)); fi
		as_user touch go
		wait $!
	done
}

# What users see of Slurm, in many forms.
plain_slurm() {
	srun_each() {
		echo "== $*"
		nodes_idle
		crun "$@" >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" </dev/null
		echo "status $?"
		sort "$BATS_TEST_TMPDIR/out"
		sort "$BATS_TEST_TMPDIR/err"
	}
	set +e
	srun_each env
	srun_each -N2 -n4 -l sh -c 'echo out; echo err >&2; exit $SLURM_PROCID'
	srun_each sh -c 'ls /proc/self/fd; umask; ulimit -a; pwd'
	srun_each grep -E '^(Cap|Sig[BIC]|Shd|NoNewPrivs|Seccomp|Groups|Uid|Gid|Umask)' /proc/self/status
	# In the same mount namespace are the same mounts, also those that come and go.
	srun_each sh -c 'readlink /proc/self/ns/*' | grep -vxFf <(readlink /proc/self/ns/*)
	srun_each bash -c 'kill -9 $$'
	srun_each no-such-command
	srun_each --no-such-option true
	srun_each --mpi=pmi2 -n2 sh -c 'env | grep ^PMI'
	as_user sbatch --wait --output=job.out --wrap 'env | sort; ls /proc/self/fd; exit 3' 2>&1
	echo "status $?"
	as_user cat job.out
	as_user salloc --quiet sh -c 'env | sort' 2>&1
}

@test "without our options everything is as without the plugin" {
	local with without conf=$BROLGA_CLUSTER_DIR/etc/plugstack.conf
	crun "${in_image[@]}" true
	with=$(plain_slurm | without_numbers)
	cp -p "$conf" "$BATS_TEST_TMPDIR/plugstack.conf"
	: >"$conf"
	run_fails crun "${in_image[@]}" true
	expect_match "unrecognized option '--container-image"
	without=$(plain_slurm | without_numbers)
	[[ $with == "$without" ]] || fail "$(diff <(echo "$without") <(echo "$with"))"
	(($(wc -l <<<"$with") > 100))
}
