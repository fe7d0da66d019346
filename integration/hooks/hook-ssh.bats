#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-ssh: from container to container of a step.

load ../lib/helpers
load ../lib/images
load ../lib/ssh

# shellcheck disable=SC2016 # for the shells of tasks

setup_file() {
	bats_require_minimum_version 1.5.0
	make_ssh_image
}

setup() {
	mark_logs
	load_ssh_image
	with=(-N4 --container-image="$ssh_image")
}

teardown() {
	dump_logs_on_failure
	restore_site_config
}

@test "ssh: a command runs in the container of the node that is named" {
	run_ok in_step "${with[@]}" '
		for n in n1 n2 n3 n4; do ssh $n "echo at \$SLURMD_NODENAME \$BROLGA_IMAGE"; done
		ssh n3 "touch /tmp/only-here"
		ssh localhost "echo home \$SLURMD_NODENAME"
		for n in n1 n2 n3 n4; do ssh $n "test ! -e /tmp/only-here || echo made at $n"; done'
	for n in n1 n2 n3 n4; do expect_line "at $n debian"; done
	expect_line "home n1"
	expect_line "made at n3"
	(($(grep -c "made at" <<<"$output") == 1))
	expect_no_leftovers
}

@test "ssh: exit status, output, errors and input are the command's" {
	run_ok in_step "${with[@]}" '
		ssh n2 "exit 7"; echo status $?
		ssh n2 "kill -9 \$\$" 2>/dev/null; echo status $?
		ssh n2 /no/such 2>/dev/null; echo status $?
		ssh n2 "echo out; echo err >&2" 2>err; echo "and $(<err)"
		head -c 10M /dev/urandom >bulk
		ssh n2 "cat" <bulk | cmp - bulk && echo same
		ssh n2 "sha256sum" <bulk | cmp - <(sha256sum <bulk) && echo same sum
		echo line | ssh -n n2 "cat; echo no input"
		rm bulk err'
	for line in "status 7" "status 255" "status 127" out "and err" same "same sum" "no input"; do expect_line "$line"; done
}

@test "ssh: a command has the environment, directory and umask of a task" {
	as_user mkdir -p ssh-dir
	run_ok in_step "${with[@]}" -D ssh-dir --container-env=MINE=1 '
		umask; pwd; ulimit -a >limits
		ssh n2 "ulimit -a" | diff limits - && echo the same limits
		ssh n2 "umask; pwd; echo node \$SLURM_NODEID of \$SLURM_STEP_NUM_NODES, mine \$MINE"
		ssh n2 "env | grep -E \"^(SLURM_(PROCID|LOCALID|TASK_PID)|PMI|BROLGA_STEP|SLURM_RLIMIT)\"" || echo nothing of a task
		env | grep -vE "^(SLURM|SSH|SRUN|PM|SHLVL|_=|TMPDIR|HOSTNAME|CUDA|GPU|ROCR|ZE|TERM)" | sort >task
		ssh n2 env | grep -vE "^(SLURM|SSH|SRUN|PM|SHLVL|_=|TERM)" | sort | diff task - && echo the same
		LC_TIME=xx ssh -o SendEnv=LC_TIME n2 "echo \$LC_TIME"'
	expect_line "node 1 of 4, mine 1"
	expect_line "nothing of a task"
	expect_line "the same"
	expect_line "the same limits"
	expect_line xx
	(($(grep -cx "$user_home/ssh-dir" <<<"$output") == 2 && $(grep -cx 0022 <<<"$output") == 2)) || fail "$output"
	rm -r "$user_home/ssh-dir"
}

@test "ssh: a session can have a terminal" {
	run_ok in_step "${with[@]}" '
		ssh -tt n2 "tty; stty size; echo term \$TERM; [[ -t 0 && -t 1 && -t 2 ]] && echo all" </dev/null | tr -d "\r"
		ssh -T n2 tty || true
		echo "echo from a shell; exit 5" | ssh n2; echo status $?'
	expect_match '^/dev/pts/[0-9]+$'
	expect_line all
	expect_line "not a tty"
	expect_line "from a shell"
	expect_line "status 5"
}

@test "ssh: scp, sftp and rsync copy between nodes" {
	run_ok in_step "${with[@]}" '
		mkdir -p /tmp/from/sub; head -c 3M /dev/urandom >/tmp/from/a; echo b >"/tmp/from/sub/b c"; chmod 750 /tmp/from/a
		ssh n2 "mkdir /tmp/to"
		scp -q /tmp/from/a n2:/tmp/to/by-scp && ssh n2 "cat /tmp/to/by-scp" | cmp - /tmp/from/a && echo scp
		scp -O -q n2:/tmp/to/by-scp /tmp/back && cmp /tmp/back /tmp/from/a && echo old scp
		printf "put /tmp/from/a /tmp/to/by-sftp\nchmod 600 /tmp/to/by-sftp\npwd\n" | sftp -q -b - n2
		ssh n2 "stat -c %a /tmp/to/by-sftp"
		rsync -a /tmp/from/ n2:/tmp/to/tree && ssh n2 "cat \"/tmp/to/tree/sub/b c\"; stat -c %a /tmp/to/tree/a"
		rsync -a --out-format="changed %n" /tmp/from/ n2:/tmp/to/tree'
	for line in scp "old scp" "Remote working directory: $user_home" 600 b 750; do expect_line "$line"; done
	refute_match '^changed .*a$'
}

@test "ssh: MPICH's launcher starts ranks on all nodes" {
	run_ok in_step "${with[@]}" '
		for n in n1 n2 n3 n4; do ssh $n "echo a rank on $n >/tmp/node"; done
		mpiexec.hydra -launcher ssh -hosts n1,n2,n3,n4 -ppn 2 -n 8 bash -c "cat /tmp/node; exec mpi_hello"'
	for n in n1 n2 n3 n4; do (($(grep -cx "a rank on $n" <<<"$output") == 2)) || fail "$output"; done
	(($(grep -c 'of 8 on .* sum 28$' <<<"$output") == 8)) || fail "$output"
}

@test "ssh: launchers of MPI go to the step's nodes without being told" {
	local image
	run_ok in_step "${with[@]}" '
		for n in n1 n2 n3 n4; do ssh $n "echo a rank on $n >/tmp/node"; done
		mpiexec.hydra -ppn 2 -n 8 bash -c "cat /tmp/node; exec mpi_hello"'
	for n in n1 n2 n3 n4; do (($(grep -cx "a rank on $n" <<<"$output") == 2)) || fail "$output"; done
	(($(grep -c 'of 8 on .* sum 28$' <<<"$output") == 8)) || fail "$output"
	image=$("$repo/scripts/cluster" image jobs)
	# TCP, because the nodes of this cluster share one /dev/shm.
	run_ok in_step -N4 --container-image="$image" '
		export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,tcp
		mpirun -np 4 --map-by node ompi_hello'
	for n in n1 n2 n3 n4; do expect_match "^rank [0-3] of 4 on $n sum 6\$"; done
	expect_no_leftovers
}

@test "ssh: what the user and the image say to launchers stays" {
	run_ok as_user env HYDRA_LAUNCHER=mine srun --container-image="$ssh_image" --container-ssh --container-env=OMPI_MCA_plm=too env
	expect_line HYDRA_LAUNCHER=mine
	expect_line OMPI_MCA_plm=too
	expect_line PRTE_MCA_plm=ssh
	run_ok crun --container-image="$ssh_image" env
	refute_match '^(HYDRA_LAUNCHER=|OMPI_MCA_plm=|PRTE_MCA_plm=|I_MPI_HYDRA_BOOTSTRAP=ssh)'
}

@test "ssh: an image without a client gets one" {
	run_ok in_step -N2 --container-image="$BROLGA_TEST_IMAGE" '
		type -P ssh; ssh -V
		ssh -x -q -o StrictHostKeyChecking=no -p 22 -l "$USER" n2 "echo at \$SLURMD_NODENAME; exit 7"; echo status $?
		head -c 10M /dev/urandom >/tmp/bulk; ssh n2 cat </tmp/bulk | cmp - /tmp/bulk && echo same
		ssh -tt n2 "tty" </dev/null | tr -d "\r"
		ssh n1 "ssh n2 \"ssh n1 \\\"echo back at \\\\\\\$SLURMD_NODENAME\\\"\""
		ssh elsewhere true; echo status $?
		ssh nobody@n2 true; echo status $?'
	expect_line /usr/bin/ssh
	expect_match '^Brolga '
	expect_line "at n2"
	expect_line "status 7"
	expect_line same
	expect_match '^/dev/pts/'
	expect_line "back at n1"
	expect_line "ssh: elsewhere is not a node of this step: Brolga's client reaches no other host"
	expect_match "^ssh: log in to n2 as nobody: .*unable to authenticate"
}

@test "ssh: an image without a shell runs programs" {
	run_ok crun --container-image="$BROLGA_TEST_SMALL_IMAGE" --container-ssh ssh localhost '/hello from "there and" back'
	expect_line "arg2: there and"
	run -127 crun --container-image="$BROLGA_TEST_SMALL_IMAGE" --container-ssh ssh localhost '/hello | cat'
	expect_line "brolga: error: the image has no shell, and '|' means something to a shell: quote it"
	run -127 crun --container-image="$BROLGA_TEST_SMALL_IMAGE" --container-ssh ssh localhost
	expect_line "brolga: error: the image has no shell: name a program"
}

@test "ssh: the image's settings of the client stay, and the user's files are left alone" {
	as_user bash -c 'mkdir -p -m 700 .ssh && rm -rf .ssh/* && echo "Host n2" >.ssh/config && touch -d 2001-01-01 .ssh .ssh/config'
	run_ok in_step "${with[@]}" '
		ssh -G elsewhere | grep -E "^(hashknownhosts|proxycommand|identityfile .*brolga)"
		tail -n +4 /etc/ssh/ssh_config | sha256sum
		ssh n2 true'
	expect_line "hashknownhosts yes" # Debian's
	refute_match '^(proxycommand|identityfile)'
	run_ok crun --container-image="$ssh_image" sha256sum /etc/ssh/ssh_config
	expect_match '^[0-9a-f]{64}'
	[[ $(ls -A "$user_home/.ssh") == config && $(stat -c %Y "$user_home/.ssh") == "$(date -d 2001-01-01 +%s)" ]]
	rm -r "$user_home/.ssh"
}

@test "ssh: what a command leaves behind stays until the step ends, and no longer" {
	run_ok in_step "${with[@]}" '
		ssh n2 "sleep 777 >/dev/null 2>&1 </dev/null & setsid sleep 778 >/dev/null 2>&1 </dev/null & true"
		sleeps() { ssh n2 "for p in /proc/[0-9]*/cmdline; do tr \"\\0\" \" \" <\$p; echo; done 2>/dev/null" | grep -x "sleep 77[789] "; }
		ssh n2 "sleep 779" & until sleeps | grep -q 779; do sleep 0.1; done; kill $!; wait
		while sleeps | grep -q 779; do sleep 0.1; done
		sleeps'
	expect_line "sleep 777 "
	expect_line "sleep 778 "
	refute_match 'sleep 779'
	retry 30 none_sleep || fail "$(pgrep -af 'sleep 77[789]')"
	expect_no_leftovers
}

none_sleep() { ! pgrep -u "$BROLGA_TEST_USER" -f '^sleep 77[789]' >/dev/null; }

@test "ssh: daemons are started, asked and ended from one node, as Spark's scripts do it" {
	run_ok in_step "${with[@]}" '
		echo "import socket, sys, os
		s = socket.create_server((\"\", 0)); open(sys.argv[1], \"w\").write(\"%d %d\" % (os.getpid(), s.getsockname()[1]))
		while True: c = s.accept()[0]; c.sendall(os.environ[\"SLURMD_NODENAME\"].encode()); c.close()" | sed "s/^\t*//" >daemon.py
		for n in n1 n2 n3 n4; do ssh $n "nohup python3 daemon.py at-$n >/dev/null 2>&1 &"; done
		for n in n1 n2 n3 n4; do
			until read -r pid port <at-$n; [[ $port ]]; do sleep 0.1; done 2>/dev/null
			echo "answer of $(ssh n2 "exec 3<>/dev/tcp/127.0.0.1/$port; cat <&3")"
			ssh $n "kill $pid; while [[ -d /proc/$pid ]]; do sleep 0.1; done; echo ended"
		done
		rm at-* daemon.py'
	for n in n1 n2 n3 n4; do expect_line "answer of $n"; done
	(($(grep -cx ended <<<"$output") == 4)) || fail "$output"
}

@test "ssh: a server stays as long as one task of its node" {
	run_ok crun -N1 -n3 --container-image="$ssh_image" --container-ssh --container-verbose bash -c '
		case $SLURM_PROCID in
		0) exit ;;
		1) sleep 0.3 ;;
		2) sleep 1; ssh localhost "echo still there" ;;
		esac'
	expect_line "still there"
	expect_match 'hook ssh: its process was ready in [0-9.]+ ms'
	expect_no_leftovers
}

@test "ssh: a container that runs already gets no servers" {
	local step
	as_user rm -f runs ends
	crun -N1 --container-image="$ssh_image" bash -c 'echo $SLURM_JOB_ID >runs; until [[ -e ends ]]; do sleep 0.1; done' >"$BATS_TEST_TMPDIR/first" 2>&1 3>&- &
	retry 20 test -s "$user_home/runs"
	step=$(<"$user_home/runs").0
	run crun --jobid="${step%.0}" --overlap --container-name="$step" --container-ssh true
	as_user touch ends
	wait "$!"
	expect_line "brolga: error: --container-ssh: container $step runs already, and has the servers that step $step wanted"
	((status != 0))
	as_user rm -f runs ends
}

@test "ssh: a batch script reaches its own container, and its steps each other's" {
	as_user tee script >/dev/null <<-SCRIPT
		#!/bin/bash
		ssh \$SLURMD_NODENAME 'echo batch at \$SLURMD_NODENAME'
		ssh n2 true; echo status \$?
		ls /dev/brolga-ssh/config
	SCRIPT
	run_ok batch -w n1,n2 --output=batch-output --container-image="$ssh_image" --container-ssh script
	output=$(<"$user_home/batch-output")
	expect_line "batch at n1"
	expect_line "status 255"
	expect_line /dev/brolga-ssh/config
	rm "$user_home"/{script,batch-output}
}

@test "ssh: steps at the same time have servers of their own" {
	local one
	as_user rm -f first second
	CRUN_TIMEOUT=60 in_step "${with[@]}" 'ssh n2 "touch first; until [[ -e second ]]; do sleep 0.1; done; echo one on \$SLURM_STEP_ID of \$SLURM_JOB_ID"' >"$BATS_TEST_TMPDIR/one" 2>&1 3>&- &
	one=$!
	retry 20 test -e "$user_home/first"
	servers_are 4
	run_ok crun -N2 --ntasks-per-node=1 --container-image="$ssh_image" --container-ssh bash -c 'ssh n2 "touch second; echo two"; ssh n3 true 2>/dev/null || echo no third'
	expect_line two
	expect_line "no third"
	wait "$one"
	grep '^one on' "$BATS_TEST_TMPDIR/one"
	as_user rm -f first second
}

@test "ssh: processes of the container's own are those that a command sees" {
	run_ok in_step -N2 --container-image="$ssh_image" --container-init 'ssh n2 "cat /proc/1/comm; [[ \$\$ -lt 100 ]] && echo low"'
	expect_match '^brolga-launch'
	expect_line low
	expect_no_leftovers
}

@test "ssh: what cannot be is said before anything is submitted" {
	before=$(last_job)
	run_fails crun --container-image="$ssh_image" --container-ssh --container-unshare=net --container-remap-root true
	expect_line 'brolga: error: --container-ssh cannot be used with --container-unshare=net; --container-ssh cannot be used with --container-remap-root'
	site_config "[ssh]
		enabled = false"
	run_fails crun --container-image="$ssh_image" --container-ssh true
	expect_line 'brolga: error: --container-ssh: this cluster does not allow SSH servers in containers'
	[[ $(last_job) == "$before" ]]
	run_ok crun --container-image="$ssh_image" --no-container-ssh bash -c 'ls /dev/brolga-ssh 2>&1 || true'
	expect_match 'No such file'
	site_config "[ssh]
		ports = '80-90'
		connections = 0"
	run_fails crun --container-image="$ssh_image" true
	expect_match 'ssh.ports = "80-90": want a range of ports from 1024 on, the lower one first'
	expect_match 'ssh.connections: want more than zero'
}

@test "ssh: servers share the site's ports, and say when there are none left" {
	site_config "[ssh]
		ports = '31001-31004'"
	run_ok in_step "${with[@]}" 'for n in n1 n2 n3 n4; do ssh $n "echo at \$SLURMD_NODENAME"; done'
	for n in n1 n2 n3 n4; do expect_line "at $n"; done
	site_config "[ssh]
		ports = '31001-31001'"
	run_fails crun -N2 --kill-on-bad-exit=1 --container-image="$ssh_image" --container-ssh sleep 30
	expect_match 'error: hook ssh: start the SSH server: none of the 1 ports that others look at is free: listen tcp 127.0.0.1:31001: bind: address already in use'
	nodes_idle
	expect_no_leftovers
}

@test "ssh: a dry run and the list of hooks show it" {
	run_ok crun --container-dry-run --container-image="$ssh_image" --container-ssh true
	expect_match '"/dev/brolga-ssh"'
	expect_match '"Ports": "20000-29999"'
	run_ok as_user brolga hooks
	expect_match '^ssh +first task +--container-ssh +starts an SSH server'
}

@test "ssh: tasks start when the servers of all nodes are there, unless the user will not wait" {
	run_ok crun -N2 --container-image="$ssh_image" --container-ssh --container-verbose true
	(($(grep -c 'hook ssh: its process was ready' <<<"$output") == 2 && $(grep -c 'hook sync took' <<<"$output") == 2)) || fail "$output"
	run_ok as_user env BROLGA_CONTAINER_SYNC=0 srun -N2 --container-image="$ssh_image" --container-ssh --container-verbose ssh localhost true
	refute_match 'hook sync'
}

@test "ssh: a step that does not ask for it has nothing of it" {
	run_ok crun --container-image="$BROLGA_TEST_IMAGE" bash -c 'ls /dev/brolga* /usr/bin/ssh 2>&1 || true; env | grep BROLGA_STEP || echo none'
	(($(grep -c 'No such file' <<<"$output") == 2))
	expect_line none
	no_servers
}
