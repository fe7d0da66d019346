#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# A user may send any value of any option and variable, by a client that checks
# nothing. The step then runs in a container as that user, or fails with words.

load ../lib/helpers
load ../lib/lifecycle
load ../lib/ssh
# shellcheck disable=SC2154 # repo, until_go and ssh_image come from there

setup_file() {
	bare=$BROLGA_CLUSTER_DIR/bare
	mkdir -p "$bare"
	chmod 0755 "$bare"
	gcc -shared -fPIC -Wall -Wextra -o "$bare/forge.so" "$repo/integration/programs/forge_plugin.c"
	gcc -O2 -Wall -Wextra -o "$bare/flood" "$repo/integration/programs/flood.c"
	echo "required $bare/forge.so" >"$bare/plugstack.conf"
	sed "s|^PlugStackConfig=.*|PlugStackConfig=$bare/plugstack.conf|" "$SLURM_CONF" >"$bare/slurm.conf"
	export bare
	head -c 100000 /dev/urandom >"$bare/garbage"
	head -c 20M /dev/zero >"$bare/zeros"
	chmod 0644 "$bare"/{garbage,zeros}
	make_ssh_image
}

teardown_file() { rm -rf "$bare"; }

# case_of NUMBER RECORD...: a step for forged-steps.
case_of() { printf '%s\0' "${@:2}" >"$bare/case-$1"; }

# attack: all cases, and what they leave.
attack() {
	run_ok "$repo/integration/programs/forged-steps" "$BROLGA_TEST_USER" "$bare/slurm.conf" "$bare"/case-*
	rm -f "$bare"/case-*
	for log in "$BROLGA_CLUSTER_DIR"/log/slurm*.log; do
		output=$(log_since_mark "${log##*/}")
		refute_match '^FORGED|panic|internal error|'$'\x1b'
	done
	expect_no_leftovers
	nodes_idle
}

# Values that no option and no variable has.
values() { printf '%s\n' '' '-1' '99999999999999999999999' '../../../../etc/shadow' '%s%n%d' ',,:=::' /root; }

@test "forged: an option with any value runs in a container as its user, or fails with words" {
	local option value number=0 long
	long=$(head -c 120000 /dev/zero | tr '\0' a)
	while read -r option; do
		while IFS= read -r value; do
			# shellcheck disable=SC2034 # by its number
			case_of $((number += 1)) "name=--$option=${value:0:40}" "option=container-image=$BROLGA_TEST_IMAGE" "option=$option=$value"
		done < <(values)
		case_of $((number += 1)) "name=--$option, two lines" "option=container-image=$BROLGA_TEST_IMAGE" "option=$option=x"$'\nFORGED'
		case_of $((number += 1)) "name=--$option, long" "option=container-image=$BROLGA_TEST_IMAGE" "option=$option=$long"
		case_of $((number += 1)) "name=--$option, not UTF-8" "option=container-image=$BROLGA_TEST_IMAGE" "option=$option="$'\xff\xfe\x9b\x1b]0;'
	done < <(sed -n 's/^{ "\([^"]*\)".*/\1/p' "$repo/spank/options.inc")
	((number > 300))
	attack
}

# names: of all variables of Slurm's, of process managers and of ours in the code. What
# ends with _ begins the names of others.
names() {
	grep -rhoE --include='*.go' --include='*.c' --include='*.h' --include='*.inc' --exclude='*_test.go' --exclude-dir=test --exclude-dir=testdata \
		'"(_SLURM|SLURMD?|SPANK|BROLGA|PMIX|PMI2?|SRUN|SBATCH|SALLOC)_[A-Za-z0-9_]*' "$repo"/{spank,cmd,pkg,hooks} |
		tr -d '"' | sort -u | grep -vxE 'SLURM_CONF' # without it the client finds no cluster
}

@test "forged: a variable with any value runs in a container as its user, or fails with words" {
	local name number=0 long
	long=$(head -c 120000 /dev/zero | tr '\0' 1)
	for name in $(names) _SLURM_SPANK_OPTION_brolga_container_{mounts,env,name,save,sync,ssh,mpi}; do
		for value in "$long" -1 ../../../../etc/shadow $'x\nFORGED' /root/pmix.1.0; do
			case_of $((number += 1)) "name=$name=${value:0:40}" "option=container-image=$BROLGA_TEST_IMAGE" "env=$name=$value"
		done
		case_of $((number += 1)) "name=$name, not UTF-8" "option=container-image=$BROLGA_TEST_IMAGE" "env=$name="$'\xff\xfe\x9b'
	done
	((number > 250))
	attack
}

@test "forged: no number of variables loses the one that asks for a container" {
	local many=() i
	for i in {1..100}; do many+=("BROLGA_OTHER_$i=1"); done
	run_ok as_user env "${many[@]}" BROLGA_CONTAINER_IMAGE="$BROLGA_TEST_IMAGE" srun --export=NONE /bin/sh -c 'head -n1 /proc/self/mountinfo'
	expect_match ' / / .* overlay '
}

@test "forged: strangers who connect to an SSH server without end keep nobody out" {
	local server port flood
	load_ssh_image
	in_background crun -N2 --container-image="$ssh_image" --container-ssh bash -c "$until_go"
	tasks_run 2
	retry 5 servers_are 2
	server=$(servers | head -n1)
	port=$(address_of "$server")
	runuser -u nobody -- "$bare/flood" 200 '' "${port##*:}" >"$BATS_TEST_TMPDIR/flood" 3>&- &
	flood=$!
	retry 20 grep -q flooding "$BATS_TEST_TMPDIR/flood"
	for _ in {1..5}; do
		run_ok timeout 100 nsenter --target "$server" --mount runuser -u "$BROLGA_TEST_USER" -- ssh localhost echo in
		expect_line in
	done
	pkill -KILL -P "$flood"
	go_on
	background_ends
	((status == 0)) || fail "$output"
	expect_clean
}

@test "forged: the programs of root do nothing for a user who runs them" {
	local program verb
	mark_logs
	for program in helper parse ssh launch; do
		for verb in "" step run init poststop "end /etc/shadow n1 5" serve "connect n1" confine join cdi seccomp --help; do
			# What they read: nothing, garbage, or more than a request may have.
			for input in /dev/null "$bare/garbage" "$bare/zeros"; do
				# shellcheck disable=SC2086 # a verb and its arguments
				run as_user timeout --signal=KILL 30 "$BROLGA_CLUSTER_DIR/prefix/libexec/brolga/brolga-$program" $verb <"$input" 3<"$input" 4>/dev/null
				((status < 127 || status == 255)) || fail "brolga-$program $verb with $input: $status: $output"
				refute_match 'goroutine|panic'
			done
		done
	done
	expect_clean
}
