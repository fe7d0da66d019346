#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Scripts that Slurm runs in a task before its program and after it: the site's on
# the host, the user's in the container.

load ../lib/helpers
load ../lib/images

in_image=(--container-image="$BROLGA_TEST_IMAGE")

prolog() {
	printf '#!/bin/sh\necho "export FROM_PROLOG=$1"\necho "print prolog in <$BROLGA_IMAGE>"\n' | sed "s/\$1/$1/"
}

@test "task prolog: the user's works from the home directory" {
	prolog user | as_user tee prolog.sh >/dev/null
	as_user chmod +x prolog.sh
	run_ok crun -n2 --task-prolog="$user_home/prolog.sh" "${in_image[@]}" sh -c 'echo "<$FROM_PROLOG>"'
	(($(grep -cx '<user>' <<<"$output") == 2)) || fail "$output"
	expect_line 'prolog in <debian>'
}

# site_prolog: runs what follows with the script on standard input as TaskProlog,
# and leaves Slurm as it was.
site_prolog() {
	script=$BROLGA_CLUSTER_DIR/etc/task-prolog.sh
	cat >"$script"
	chmod 0755 "$script"
	cp "$SLURM_CONF" "$BATS_TEST_TMPDIR/slurm.conf"
	printf 'TaskProlog=%s\n' "$script" >>"$SLURM_CONF"
	scontrol reconfigure
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	if [[ -e $BATS_TEST_TMPDIR/slurm.conf ]]; then
		put "$BATS_TEST_TMPDIR/slurm.conf" "$SLURM_CONF"
		scontrol reconfigure
		rm -f "$BROLGA_CLUSTER_DIR/etc/task-prolog.sh"
	fi
}

@test "task prolog: the site's runs on the host, once for each task, for any image" {
	site_prolog <<-'SCRIPT'
		#!/bin/bash
		[[ -e /usr/sbin/slurmd ]] && echo "export FROM_PROLOG=the host"
		echo "export MINE=$(id -un) $SLURM_PROCID"
		echo "unset UNWANTED"
		echo "print prolog of $SLURM_PROCID"
		grep ^CapEff /proc/self/status | sed 's/^/print /'
	SCRIPT
	run_ok as_user env UNWANTED=1 srun -n2 "${in_image[@]}" sh -c \
		'echo "<$FROM_PROLOG> <$MINE> <$UNWANTED> <$BROLGA_IMAGE>"; ! ls /usr/sbin/slurmd 2>/dev/null'
	for task in 0 1; do
		expect_line "<the host> <$BROLGA_TEST_USER $task> <> <debian>"
		(($(grep -cx "prolog of $task" <<<"$output") == 1)) || fail "$output"
	done
	(($(grep -cx $'CapEff:\t0000000000000000' <<<"$output") == 2)) || fail "$output"
	# There is no shell.
	run_ok crun --container-image="$BROLGA_TEST_SMALL_IMAGE" /hello
	expect_line 'BROLGA_IMAGE: distroless'
	run_ok batch --output=job.out "${in_image[@]}" --wrap 'echo "<$FROM_PROLOG> <$MINE>"'
	run_ok as_user cat job.out
	expect_line "<the host> <$BROLGA_TEST_USER 0>"
}

@test "task prolog: its variables are the step's, over which the image's win" {
	site_prolog <<-'SCRIPT'
		#!/bin/sh
		echo export BROLGA_IMAGE=prolog
		echo export OTHER=from the host
	SCRIPT
	run_ok crun "${in_image[@]}" sh -c 'echo "$BROLGA_IMAGE $OTHER"'
	expect_line 'debian from the host'
}

@test "task prolog: one that fails ends the task with its status and one line" {
	site_prolog <<<$'#!/bin/sh\necho print before\nexit 5'
	run crun "${in_image[@]}" echo after
	((status == 5)) || fail "$status: $output"
	expect_line "brolga: error: TaskProlog $script: exit status 5"
	refute_match '^after'
	nodes_idle
	chmod 0644 "$script"
	run_fails crun "${in_image[@]}" echo after
	expect_one_error "run TaskProlog $script: Permission denied"
	nodes_idle
}

@test "task prolog: the site's comes first, then the user's, which sees what it exports" {
	site_prolog <<<$'#!/bin/sh\necho export FROM_SITE=1'
	printf '#!/bin/sh\necho "export BOTH=$FROM_SITE,2"\n' | as_user tee prolog.sh >/dev/null
	as_user chmod +x prolog.sh
	run_ok crun --task-prolog="$user_home/prolog.sh" "${in_image[@]}" sh -c 'echo "<$BOTH>"'
	expect_line '<1,2>'
}

@test "task prolog: steps without a container have Slurm's" {
	site_prolog <<<$'#!/bin/sh\necho export FROM_SITE=1'
	run_ok crun sh -c 'echo "<$FROM_SITE>"'
	expect_line '<1>'
}

@test "task epilog: it runs on the host, where the user's work is" {
	printf '#!/bin/sh\necho "<$BROLGA_IMAGE>" >epilog.out\n' | as_user tee epilog.sh >/dev/null
	as_user chmod +x epilog.sh
	run_ok crun --task-epilog="$user_home/epilog.sh" "${in_image[@]}" true
	retry 10 test -e "$user_home/epilog.out"
	run_ok as_user cat epilog.out
	[[ $output == '<>' ]] || fail "$output"
}
