#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# OCI hooks at poststop: what runs once the step has ended, whatever ended it.

load ../lib/helpers
load ../lib/lifecycle
load ../lib/images

setup() {
	mark_logs
	dir=$BROLGA_CLUSTER_DIR/hooks
	log=$dir/log
	mkdir -p "$dir/bin"
	site_config "hooks.directories = [\"$dir\"]"
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
}

teardown() {
	dump_logs_on_failure
	as_user scancel --quiet --user "$BROLGA_TEST_USER"
	restore_site_config
	rm -rf "$dir"
}

# hook NAME [WHEN [STAGES]]: standard input becomes a program that runs then; $log is
# a file of its own.
hook() {
	{
		printf '#!/bin/bash\nlog=%s\n' "$log"
		cat
	} >"$dir/bin/$1"
	chmod 0755 "$dir/bin/$1"
	jq -n --arg path "$dir/bin/$1" --argjson when "${2:-"{\"always\": true}"}" --arg stages "${3:-poststop}" \
		'{version: "1.0.0", hook: {path: $path, timeout: 2}, when: $when, stages: ($stages / " ")}' >"$dir/$1.json"
}

# A hook that notes one line for each step that has ended on a node.
noting() { hook note "$@" <<<'jq -c "[.id, .status, .pid]" >>"$log"'; }

# noted COUNT [ID]: that many steps have ended, the last one with that name.
noted() { (($(wc -l <"$log") == $1)) && tail -n1 "$log" | grep -qF "[\"step-${2:-}"; } 2>/dev/null

is_planned() { compgen -G "$BROLGA_CLUSTER_DIR/run/poststop/step-*" >/dev/null; }

running() { as_user squeue --steps --noheader --format=%i | grep -q "\.0$"; }

@test "poststop: it runs once on each node when the step has ended, and not before" {
	noting
	run_ok crun -N2 --ntasks-per-node=2 "${in_image[@]}" sh -c "test ! -e $log && echo quiet; sleep 0.5"
	(($(grep -cx quiet <<<"$output") == 4)) || fail "$output"
	retry 10 noted 2 "$(last_job).0\",\"stopped\",null]" || fail "$(cat "$log")"
	expect_no_leftovers
}

@test "poststop: no process of Brolga's waits for it" {
	noting
	crun -w n1 "${in_image[@]}" sleep 60 &
	retry 10 running
	retry 10 is_planned
	sleep 0.3
	[[ -z $(helpers) ]] || fail "$(helpers)"
	as_user scancel --user "$BROLGA_TEST_USER"
	wait $! || true
	retry 10 noted 1
	expect_no_leftovers
}

@test "poststop: it runs after scancel, SIGKILL of the tasks and a step that never began" {
	noting
	crun -w n1 "${in_image[@]}" sleep 60 &
	retry 10 running
	as_user scancel --signal=KILL "$(last_job).0"
	wait $! || true
	retry 10 noted 1
	hook refuse '{"annotations": {"^refuse$": ""}}' prestart <<<'exit 1'
	run_fails crun -w n1 "${in_image[@]}" --container-annotation=refuse= true
	retry 10 noted 2
	run_fails crun -w n1 "${in_image[@]}" sh -c 'kill -KILL $$'
	retry 10 noted 3
	run_ok as_user sbatch -w n1 "${in_image[@]}" --output=/dev/null --wrap true
	retry 20 noted 4 "$(last_job).batch"
	expect_no_leftovers
	nodes_idle
}

@test "poststop: after SIGKILL of slurmstepd the end of the job does it, or of a step on the node" {
	noting
	# The plugin knows no more of the site than where its configuration is.
	site_config "hooks.directories = [\"$dir\"]
run_dir = \"$BROLGA_CLUSTER_DIR/elsewhere\""
	crun -w n1 "${in_image[@]}" sleep 60 &
	retry 10 running
	retry 10 is_planned
	kill -KILL "$(steps)"
	kill_orphans
	as_user scancel --user "$BROLGA_TEST_USER"
	wait $! || true
	retry 60 noted 1 || fail "nothing was run"
	retry 60 nodes_idle_now
	! is_planned || fail "it is planned still"
	run_ok crun -w n1 "${in_image[@]}" true
	retry 30 noted 2 || fail "$(cat "$log")"
	expect_no_leftovers
	rm -r "$BROLGA_CLUSTER_DIR/elsewhere"
}

@test "poststop: one that fails or hangs is in slurmd's log, and the others run" {
	hook 1-fail <<<'echo the lamp is out >&2; exit 3'
	hook 2-hang <<<'sleep 60'
	noting
	run_ok crun -w n1 "${in_image[@]}" true
	retry 15 noted 1
	output=$(log_since_mark slurmd.n1.log)
	expect_match "error: brolga: step-$(last_job).0: hook $dir/1-fail.json: poststop: 1-fail: the lamp is out \(exit status 3\)"
	expect_match "error: brolga: step-$(last_job).0: hook $dir/2-hang.json: poststop: run 2-hang: killed after 2s, its time limit"
	expect_no_leftovers
	nodes_idle
}

@test "poststop: it is for the steps whose conditions hold, and costs the others nothing" {
	noting '{"annotations": {"^com.example.on$": "1"}}'
	run_ok crun -w n1 "${in_image[@]}" true
	! is_planned || fail "it is planned"
	run_ok crun -w n1 "${in_image[@]}" --container-annotation=com.example.on=1 true
	retry 10 noted 1 "$(last_job).0"
	sleep 0.2
	(($(wc -l <"$log") == 1)) || fail "$(cat "$log")"
}

@test "poststop: brolga hooks and --container-dry-run show it" {
	noting
	run_ok as_user brolga hooks --config "$BROLGA_CONFIG"
	expect_match "^$dir/note.json +poststop +always +runs $dir/bin/note$"
	run_ok as_user srun "${in_image[@]}" --container-dry-run true
	[[ $(jq -r '.spec.hooks.poststop[0].path' <<<"$output") == "$dir/bin/note" ]] || fail "$output"
}
