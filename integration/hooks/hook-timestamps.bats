#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# hooks.timestamps: what the time of each step's start went to, for performance work.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	dir=$BROLGA_CLUSTER_DIR/hooks
	times=$dir/times
	mkdir -p "$dir"
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	rm -rf "$dir"
}

@test "timestamps: each node writes a line with nanoseconds for each part, hooks included" {
	local node
	jq -n '{version: "1.0.0", hook: {path: "/bin/true"}, when: {always: true}, stages: ["createRuntime"]}' >"$dir/true.json"
	site_config "hooks.timestamps = '$times'
hooks.directories = ['$dir']
[[mpi]]
name = 'mpich'
libraries = ['libmpich.so.12']"
	run_ok crun -w n1,n2 --ntasks-per-node=2 "${in_image[@]}" --container-mpi true
	run_ok crun -w n1 "${in_image[@]}" true
	for node in n1 n2; do
		output=$(awk -v node="$node" -v step="$(($(last_job) - 1)).0" '$2 == node && $3 == step {print $4}' "$times")
		[[ ${output//$'\n'/ } == "begin thread image hook:mpi hook:mounts bundle hook:$dir/true.json@createRuntime container ready" ]] || fail "$output"
	done
	# A time of the kind that sorts, and what the parts take together is the whole.
	(($(grep -cE '^[0-9-]{10}T[0-9:]{8}\.[0-9]{9}Z n[12] [0-9]+\.0 [^ ]+ [0-9]+$' "$times") == $(wc -l <"$times"))) || fail "$(cat "$times")"
	awk -v step="$(last_job).0" '$3 == step && $4 ~ /^(thread|image|bundle|container)$/ {sum += $5} $3 == step && $4 == "ready" {ready = $5} END {exit !(sum > 0 && sum <= ready + 1000 && ready <= sum + 1000)}' "$times" || fail "$(cat "$times")"
	(($(grep -c "$(last_job).0 hook:mpi" "$times") == 0)) || fail "$(cat "$times")"
}

@test "timestamps: the user sees the same with --container-verbose, and no file is there if the site wants none" {
	site_config "[[mpi]]
name = 'mpich'
libraries = ['libmpich.so.12']"
	run_ok crun "${in_image[@]}" --container-mpi --container-verbose true
	expect_match '^brolga: container ready in [0-9.]+ ms: thread [0-9.]+ ms, image [0-9.]+ ms, bundle [0-9.]+ ms \(mpi [0-9.]+ ms, mounts [0-9.]+ ms\), container [0-9.]+ ms; [0-9.]+ ms of processor time$'
	[[ ! -e $times ]]
}

@test "timestamps: where they cannot be written the step runs, and who asks is told" {
	chmod 0777 "$dir"
	site_config "hooks.timestamps = '$times'"
	run_ok crun "${in_image[@]}" --container-verbose echo runs
	expect_line runs
	expect_match "^brolga: write times: $dir \(owner 0, mode 0777\): someone other than root could change it"
	[[ ! -e $times ]]
	site_config "hooks.timestamps = '/no/such/times'"
	run_ok crun "${in_image[@]}" echo runs
	[[ $output == runs ]] || fail "$output"
	site_config "hooks.timestamps = 'times'"
	run_fails crun "${in_image[@]}" true
	expect_match 'hooks.timestamps = "times": want an absolute path'
}
