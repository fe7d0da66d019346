#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# OCI hooks: programs that files in hooks.directories describe.

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	dir=$BROLGA_CLUSTER_DIR/hooks
	mkdir -p "$dir/bin" "$dir/log"
	site_config "hooks.directories = [\"$dir\"]"
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
	given
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	rm -rf "$BROLGA_CLUSTER_DIR/hooks"
}

# program NAME: standard input becomes a program of the site's; $log is a file of
# its own.
program() {
	log=$dir/log/$1
	{
		printf '#!/bin/bash\nlog=%s\n' "$log"
		cat
	} >"$dir/bin/$1"
	chmod 0755 "$dir/bin/$1"
}

# describe FILE PROGRAM STAGES [WHEN [MORE]]: stages separated by blanks; MORE are
# members of "hook".
describe() {
	jq -n --arg path "$dir/bin/$2" --arg stages "$3" --argjson when "${4:-"{\"always\": true}"}" --argjson more "${5:-"{}"}" \
		'{version: "1.0.0", hook: ({path: $path} + $more), when: $when, stages: ($stages / " ")}' >"$dir/$1"
}

ran() { [[ -e $dir/log/$1 ]]; }
idled() { [[ ! -e $dir/log/$1 ]]; }

@test "external hook: what it mounts is in the container on every node, and nowhere else" {
	program inside <<-'HOOK'
		root=$(jq -r .root.path config.json)
		mount -t tmpfs inside "$root/mnt" && echo inside >"$root/mnt/stamp"
	HOOK
	program outside <<-'HOOK'
		pid=$(jq -r .pid)
		root=$(jq -r .root.path config.json)
		nsenter --target "$pid" --mount sh -c "mount -t tmpfs outside $root/srv && echo outside >$root/srv/stamp"
	HOOK
	describe inside.json inside createContainer
	describe outside.json outside createRuntime
	run_ok crun -N2 --ntasks-per-node=2 "${in_image[@]}" sh -c 'cat /mnt/stamp; cat /srv/stamp'
	(($(grep -cx inside <<<"$output") == 4)) || fail "$output"
	(($(grep -cx outside <<<"$output") == 4)) || fail "$output"
	run_fails grep -E ' (inside|outside) ' /proc/mounts
	expect_no_leftovers
	nodes_idle
}

@test "external hook: it is root with the container's state, its file's arguments and environment, and no more" {
	program look <<-'HOOK'
		exec >"$log"
		jq -r '"state \(.ociVersion) \(.id) \(.status) \(.annotations["com.example.x"])"'
		id -u
		cat /proc/$$/environ | tr '\0' '\n' | sed 's/^/env /'
		tr '\0' ' ' </proc/$$/cmdline
		echo
		ls /proc/$$/fd >"$log.fd"
		jq -r '.annotations["com.example.x"]' config.json
	HOOK
	describe look.json look prestart '{"always": true}' '{"args": ["my-name", "a b"], "env": ["HOOK=yes"]}'
	run_ok as_user env SECRET=job LD_PRELOAD= srun "${in_image[@]}" --container-annotation=com.example.x=42 true
	output=$(<"$log")
	expect_match '^state 1\.[0-9.]+ step-[0-9]+\.0 creating 42$'
	expect_line 0
	[[ $(grep '^env' <<<"$output") == 'env HOOK=yes' ]] || fail "$output"
	# The kernel puts the script in the place of its name.
	expect_match "^/bin/bash $dir/bin/look a b $"
	[[ $(sort -n "$log.fd" | tr '\n' ' ') == '0 1 2 255 ' ]] || fail "$(cat "$log.fd")" # 255 is bash's own
	expect_line 42
}

@test "external hook: at createContainer it is in the namespaces that the container has for itself" {
	program where <<-'HOOK'
		readlink /proc/self/ns/{net,ipc,uts,mnt} >"$log"
	HOOK
	describe where.json where createContainer
	run_ok crun "${in_image[@]}" --container-unshare=net,ipc,uts readlink /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/uts /proc/self/ns/mnt
	[[ $output == "$(<"$log")" ]] || fail "$output is not $(<"$log")"
}

@test "external hook: stages come in their order, and files of a stage in that of their names" {
	program note <<-'HOOK'
		echo "$1 $(jq -r .status)" >>"$log"
	HOOK
	describe 20-b.json note 'poststart createContainer' '{"always": true}' '{"args": ["x", "b"]}'
	describe 10-c.json note 'createContainer createRuntime' '{"always": true}' '{"args": ["x", "c"]}'
	describe 30-a.json note 'prestart createRuntime' '{"always": true}' '{"args": ["x", "a"]}'
	run_ok crun "${in_image[@]}" true
	[[ $(tr '\n' ',' <"$log") == 'a creating,c creating,a creating,c creating,b creating,b running,' ]] || fail "$(cat "$log")"
}

@test "external hook: one that fails ends the step with a line that names its file" {
	program bad <<-'HOOK'
		echo 'looking for the device'
		echo 'no such device' >&2
		exit 3
	HOOK
	for stage in prestart createContainer poststart; do
		describe bad.json bad "$stage"
		run_fails crun -n2 "${in_image[@]}" echo started
		expect_one_error "start container: hook $dir/bad.json: $stage: bad: no such device (exit status 3)"
		expect_match 'brolga: hint: the hook is the site.s: tell its administrator; --container-verbose shows all'
	done
	run_fails crun "${in_image[@]}" --container-verbose true
	expect_match 'no such device \(exit status 3\); it wrote: looking for the device; no such device'
	expect_no_leftovers
	nodes_idle
}

@test "external hook: one that hangs is killed with its children when its time is up" {
	program hang <<-'HOOK'
		sleep 1234 &
		echo $! >"$log"
		wait
	HOOK
	describe hang.json hang createRuntime '{"always": true}' '{"timeout": 1}'
	run_fails crun "${in_image[@]}" true
	expect_one_error "start container: hook $dir/hang.json: createRuntime: run hang: killed after 1s, its time limit"
	gone "$(<"$log")"
	describe hang.json hang createRuntime
	site_config "hooks.directories = [\"$dir\"]
hooks.timeout = \"2s\""
	run_fails crun "${in_image[@]}" true
	expect_match "killed after 2s, its time limit"
	expect_no_leftovers
	nodes_idle
}

@test "external hook: the end of the step ends one that still runs" {
	program slow <<-'HOOK'
		sleep 1234 &
		echo $! >"$log"
		wait
	HOOK
	describe slow.json slow createRuntime
	crun "${in_image[@]}" true &
	retry 30 test -s "$log"
	as_user scancel --user "$BROLGA_TEST_USER"
	wait $! || true
	retry 30 gone "$(<"$log")"
	expect_no_leftovers
	nodes_idle
}

# A zombie is gone.
gone() { [[ ! -e /proc/$1/exe ]]; }

@test "external hook: a program, a file or a directory that others could change is not believed" {
	local what
	program trap <<<'touch "$log"'
	describe trap.json trap prestart
	for what in bin/trap bin trap.json .; do
		chmod o+w "$dir/$what"
		run_fails crun "${in_image[@]}" true
		expect_match "brolga: error: .*hook.*$(realpath "$dir/$what") \(owner 0, mode 0[0-9]+\): someone other than root could change it$"
		(($(grep -c 'brolga: error' <<<"$output") == 1)) || fail "$output"
		expect_match 'brolga: hint: the administrator must give it'
		chmod o-w "$dir/$what"
	done
	for what in bin/trap trap.json; do
		chown "$BROLGA_TEST_USER" "$dir/$what"
		run_fails crun "${in_image[@]}" true
		expect_match "could change it$"
		chown root "$dir/$what"
	done
	idled trap
	nodes_idle
	run_ok crun "${in_image[@]}" true
	ran trap
}

@test "external hook: it runs only where its conditions hold" {
	local when
	program cond <<<'touch "$log"'
	runs() {
		rm -f "$log"
		run_ok crun "${in_image[@]}" "$@"
		ran cond || fail "did not run for $when: $*"
	}
	idle() {
		rm -f "$log"
		run_ok crun "${in_image[@]}" "$@"
		idled cond || fail "ran for $when: $*"
	}
	when='{"annotations": {"^com.example.on$": "^(yes|true)$"}}'
	describe cond.json cond prestart "$when"
	runs --container-annotation=com.example.on=yes true
	idle --container-annotation=com.example.on=no true
	idle true
	when='{"commands": ["/id$"]}'
	describe cond.json cond prestart "$when"
	runs /usr/bin/id
	idle /bin/true
	when='{"hasBindMounts": true, "annotations": {"on": "1"}}'
	describe cond.json cond prestart "$when"
	runs --container-annotation=on=1 --container-mounts=/etc/hostname:/mnt/h true
	idle --container-annotation=on=1 --container-mounts=tmpfs:/mnt true
	idle --container-mounts=/etc/hostname:/mnt/h true
	when='{"always": false}'
	describe cond.json cond prestart "$when"
	idle true
}

@test "external hook: with Podman's directories the site's file counts for its vendor's of the same name" {
	local vendor=$dir/usr/share/containers/oci/hooks.d site=$dir/etc/containers/oci/hooks.d
	program vendor <<<'touch "$log"'
	program other <<<'touch "$log"'
	program site <<<'touch "$log"'
	mkdir -p "$vendor" "$site"
	describe usr/share/containers/oci/hooks.d/10-gpu.json vendor createRuntime
	describe usr/share/containers/oci/hooks.d/20-other.json other createRuntime
	describe etc/containers/oci/hooks.d/10-gpu.json site createRuntime
	describe etc/containers/oci/hooks.d/30-off.json.disabled vendor createRuntime
	site_config "hooks.directories = [\"$vendor\", \"$site\", \"$dir/none\"]"
	run_ok crun "${in_image[@]}" true
	ran site
	ran other
	idled vendor
	run_ok as_user brolga hooks --config "$BROLGA_CONFIG"
	(($(grep -c createRuntime <<<"$output") == 2)) || fail "$output"
}

@test "external hook: a label of an image counts only if the site names it" {
	new_image
	push_image --label com.example.on=yes hook-label:1
	program label <<<'touch "$log"'
	describe label.json label prestart '{"annotations": {"^com.example.on$": "yes"}}'
	run_ok crun --container-image="$ref" id
	idled label
	site_config "hooks.directories = [\"$dir\"]
hooks.labels = [\"com.example.*\"]"
	run_ok crun --container-image="$ref" --container-annotation=com.example.on=no id
	idled label
	run_ok crun --container-image="$ref" id
	ran label
}

@test "external hook: what it writes is shown to those who ask" {
	program talk <<-'HOOK'
		echo 'mounted the device'
		printf 'and \033[31mmore\n' >&2
	HOOK
	describe talk.json talk createContainer
	run_ok crun -n2 "${in_image[@]}" --container-verbose true
	expect_match "^brolga: hook $dir/talk.json ran at createContainer for [0-9.]+ ms$"
	expect_line "brolga: hook $dir/talk.json: mounted the device"
	expect_line "brolga: hook $dir/talk.json: and ?[31mmore"
	(($(grep -c 'mounted the device' <<<"$output") == 1)) || fail "$output"
	run_ok crun "${in_image[@]}" true
	refute_match 'hook|device'
}

@test "external hook: a file that is not right is refused by name, and nothing runs" {
	program never <<<'touch "$log"'
	describe 10-never.json never prestart
	refuses() {
		cat >"$dir/20-broken.json"
		run_fails crun "${in_image[@]}" true
		expect_one_error "read hook $dir/20-broken.json: $1"
	}
	refuses 'unexpected EOF' <<<'{"version": "1.0.0",'
	refuses 'json: unknown field "stage"' <<<'{"version": "1.0.0", "stage": ["prestart"]}'
	describe 20-broken.json never startContainer
	refuses 'stage startContainer does not exist here: it would run a program of the image as root; use createContainer' <<<"$(cat "$dir/20-broken.json")"
	idled never
	nodes_idle
}

@test "external hook: brolga hooks and --container-dry-run show them" {
	program show <<<'true'
	describe 20-b.json show 'poststart createRuntime' '{"annotations": {"on": "1"}, "commands": ["x"]}' '{"args": ["show", "--all"]}'
	describe 10-a.json show prestart
	run_ok as_user brolga hooks --config "$BROLGA_CONFIG"
	expect_match '^HOOK +MOMENT +WHEN +EFFECT$'
	expect_match '^batchscript +edit +batch steps +mounts the directory of the batch script'
	expect_match "^$dir/20-b.json +createRuntime +annotation on=1, command x +runs $dir/bin/show --all$"
	[[ $(awk '{print $2}' <<<"$output" | tail -n3 | tr '\n' ' ') == 'prestart createRuntime poststart ' ]] || fail "$output"
	run_ok as_user brolga hooks --json --config "$BROLGA_CONFIG"
	jq -e 'map(select(.when == "always" and .moment == "prestart")) | length == 1' <<<"$output"
	run_ok as_user srun "${in_image[@]}" --container-dry-run true
	[[ $(jq -c .spec.hooks <<<"$output") == "{\"prestart\":[{\"path\":\"$dir/bin/show\"}]}" ]] || fail "$output"
	echo '{' >"$dir/30-bad.json"
	run_fails as_user brolga hooks --config "$BROLGA_CONFIG"
	expect_match "^brolga: error: read hook $dir/30-bad.json: unexpected EOF"
	expect_match "^$dir/10-a.json +prestart"
}
