#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-entrypoint, --no-container-entrypoint, --container-entrypoint-log

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	new_image
	cat >"$image/entry.sh" <<-'END'
		#!/bin/sh
		echo "entry $#: $*"
		export FROM_ENTRY="set by $1"
		shift
		exec "$@"
	END
	chmod 0755 "$image/entry.sh"
	push_image --entrypoint /entry.sh --entrypoint 'a b' option-entrypoint:1
	in_image=(--container-image="$ref")
	given
}

@test "entrypoint: it is run in front of the command, whose environment it makes" {
	run_ok crun "${in_image[@]}" --container-entrypoint sh -c 'echo "$FROM_ENTRY, ${BROLGA_LAUNCH-clean}"' x
	expect_line 'entry 5: a b sh -c echo "$FROM_ENTRY, ${BROLGA_LAUNCH-clean}" x'
	expect_line 'set by a b, clean'
}

@test "entrypoint: the command may have any arguments, also those that the launcher knows" {
	for word in run hold keep reap confine; do
		run_ok crun "${in_image[@]}" --container-entrypoint echo "$word"
		expect_line "$word"
		run_ok crun "${in_image[@]}" --container-entrypoint echo "$word" 3 4 ur 5 6
		expect_line "$word 3 4 ur 5 6"
	done
}

@test "entrypoint: without the option the command is executed alone" {
	run_ok crun "${in_image[@]}" sh -c 'echo "${FROM_ENTRY-alone}"; ls /dev'
	expect_line alone
	refute_match 'entry|brolga'
}

@test "entrypoint: each task runs its own, and is still Slurm's own child" {
	run_ok crun -n3 --label "${in_image[@]}" --container-entrypoint sh -c 'echo "$SLURM_PROCID $(cat /proc/$PPID/comm)"; exit 0'
	expect_line '0: 0 slurmstepd'
	expect_line '2: 2 slurmstepd'
	[[ $(grep -c entry <<<"$output") == 3 ]]
}

@test "entrypoint: signals and exit codes are the command's" {
	run as_user srun "${in_image[@]}" --container-entrypoint sh -c 'exit 42'
	((status == 42)) || fail "$status $output"
	run as_user srun "${in_image[@]}" --container-entrypoint sh -c 'kill -TERM $$'
	((status == 143)) || fail "$status $output"
}

@test "entrypoint: a program that is none of a wrapper gets the command as arguments" {
	push_image --entrypoint cat option-entrypoint:cat
	run_ok crun --container-image="$ref" --container-entrypoint /entry.sh /entry.sh
	expect_match '^export FROM_ENTRY'
}

@test "entrypoint: it runs as the user without privilege, on a read-only root too" {
	run_ok crun "${in_image[@]}" --container-readonly --container-entrypoint sh -c 'id -u; grep -E "CapPrm|CapBnd|NoNewPrivs" /proc/self/status'
	expect_line "$(id -u "$BROLGA_TEST_USER")"
	expect_match 'CapPrm:.0000000000000000'
	expect_match 'CapBnd:.0000000000000000'
	expect_match 'NoNewPrivs:.1'
}

@test "entrypoint: the program inherits no descriptor of ours" {
	run_ok crun "${in_image[@]}" --container-entrypoint sh -c 'ls -l /proc/self/fd'
	refute_match 'memfd|plan'
}

@test "entrypoint: an image without one changes nothing" {
	push_image option-entrypoint:none
	run_ok crun --container-image="$ref" --container-entrypoint sh -c 'echo fine'
	[[ $output == fine ]] || fail "$output"
}

@test "entrypoint: one that is missing fails the task with its name" {
	push_image --entrypoint /no/such option-entrypoint:missing
	run crun --container-image="$ref" --container-entrypoint true
	((status == 2)) || fail "$status $output"
	expect_line 'brolga: error: execute /no/such: No such file or directory'
	nodes_idle
}

@test "entrypoint: a batch script is run by it, and so are its steps" {
	run_ok batch --output=job.out "${in_image[@]}" --container-entrypoint --wrap 'echo "batch: $FROM_ENTRY"'
	run_ok as_user cat job.out
	expect_match '^entry 2: a b /.*/slurm_script'
	expect_line 'batch: set by a b'
}

@test "entrypoint: the log says what is run, once a node" {
	run_ok crun -N2 -n4 "${in_image[@]}" --container-entrypoint --container-entrypoint-log sh -c 'exit 0'
	[[ $(grep -c 'brolga: entrypoint: /entry.sh a b$' <<<"$output") == 2 ]] || fail "$output"
	run_ok crun "${in_image[@]}" --container-entrypoint-log sh -c 'exit 0'
	expect_match 'brolga: no entrypoint is run: --container-entrypoint was not given'
}

@test "entrypoint: the site decides, then the variable, then the option" {
	site_config $'[container]\nentrypoint = true'
	run_ok crun "${in_image[@]}" sh -c 'exit 0'
	expect_match '^entry'
	run_ok crun "${in_image[@]}" --no-container-entrypoint sh -c 'exit 0'
	[[ -z $output ]]
	run_ok as_user env BROLGA_CONTAINER_ENTRYPOINT=0 srun "${in_image[@]}" sh -c 'exit 0'
	[[ -z $output ]]
	run_ok as_user env BROLGA_CONTAINER_ENTRYPOINT=0 srun "${in_image[@]}" --container-entrypoint sh -c 'exit 0'
	expect_match '^entry'
}

@test "entrypoint: mistakes are found before anything is submitted" {
	refused '--no-container-entrypoint contradicts --container-entrypoint: give one of them' \
		"${in_image[@]}" --container-entrypoint --no-container-entrypoint
	given BROLGA_CONTAINER_ENTRYPOINT=maybe
	refused 'BROLGA_CONTAINER_ENTRYPOINT=maybe: want 1 or 0' "${in_image[@]}"
	run_fails crun --container-entrypoint true
	expect_one_error 'container options are given, but no image'
	printf '0 true\n' | as_user tee "$user_home/multi.conf" >/dev/null
	run_fails crun "${in_image[@]}" --container-entrypoint --multi-prog "$user_home/multi.conf"
	expect_one_error '--container-entrypoint cannot be used with --multi-prog'
}
