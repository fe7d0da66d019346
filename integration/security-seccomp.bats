#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# container.seccomp: the site's profile for tasks in containers.

load helpers
load images
load run

setup() {
	mark_logs
	profile=$BROLGA_CLUSTER_DIR/etc/seccomp.json
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
	given
}

teardown() {
	dump_logs_on_failure
	restore_site_config
	rm -f "$profile"
}

# with_rules RULES: all is allowed but what they say.
with_rules() {
	printf '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [%s]}' "$1" >"$profile"
	site_config "[container]
seccomp = \"$profile\""
}

no_links='{"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95'

@test "seccomp: the site's profile forbids a system call in every task, and no other" {
	with_rules "$no_links}"
	run_ok crun -N2 --ntasks-per-node=2 "${in_image[@]}" sh -c 'grep Seccomp: /proc/self/status; ln -s x /tmp/x || mkdir /tmp/d.$SLURM_PROCID && rmdir /tmp/d.$SLURM_PROCID && echo made'
	(($(grep -c 'Operation not supported' <<<"$output") == 4)) || fail "$output"
	(($(grep -cx made <<<"$output") == 4)) || fail "$output"
	(($(grep -c 'Seccomp:.2' <<<"$output") == 4)) || fail "$output"
}

@test "seccomp: without a profile there is no filter" {
	run_ok crun "${in_image[@]}" grep Seccomp: /proc/self/status
	expect_match 'Seccomp:.0'
}

@test "seccomp: rules of other machines, kernels and capabilities do not apply" {
	with_rules "$no_links, \"includes\": {\"arches\": [\"s390x\"]}}, $no_links, \"includes\": {\"caps\": [\"CAP_SYS_ADMIN\"]}}, $no_links, \"includes\": {\"minKernel\": \"255.0\"}}"
	run_ok crun "${in_image[@]}" sh -c 'ln -s x /tmp/seccomp.$$ && rm /tmp/seccomp.$$ && echo made'
	expect_line made
}

@test "seccomp: a rule can be of an argument" {
	with_rules '{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [{"index": 1, "value": 448, "op": "SCMP_CMP_EQ"}]}'
	run_ok crun "${in_image[@]}" sh -c 'cd /tmp; mkdir -m 0777 a.$$ && rmdir a.$$ && echo made; mkdir -m 0700 b.$$ || echo refused; rm -rf b.$$'
	expect_line made
	expect_line refused
}

@test "seccomp: a remapped root has it, too" {
	with_rules "$no_links}"', {"names": ["fchownat", "chown"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}'
	run_ok crun "${in_image[@]}" --container-remap-root sh -c 'id -u; ln -s x /opt/x; touch /opt/y; chown 7 /opt/y || echo refused'
	expect_line 0
	expect_line refused
	expect_match 'Operation not supported'
}

@test "seccomp: sessions of SSH servers have it, too" {
	with_rules "$no_links}"
	run_ok crun "${in_image[@]}" --container-ssh ssh localhost 'grep Seccomp: /proc/self/status; ln -s x /tmp/x || echo refused'
	expect_line refused
	expect_match 'Seccomp:.2'
}

@test "seccomp: so have a process namespace and the image's entrypoint" {
	with_rules "$no_links}"
	run_ok crun "${in_image[@]}" --container-unshare=pid --container-entrypoint sh -c 'ln -s x /tmp/x || echo refused $$'
	expect_match '^refused [0-9]$'
}

@test "seccomp: so has brolga run" {
	with_rules "$no_links}"
	run_ok brun "$BROLGA_TEST_IMAGE" sh -c 'ln -s x /tmp/x || echo refused'
	expect_line refused
	run_ok brun --remap-root "$BROLGA_TEST_IMAGE" sh -c 'ln -s x /tmp/x || echo refused'
	expect_line refused
}

@test "seccomp: a profile that is missing, not root's or wrong is told, and the node stays" {
	with_rules '{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}'
	run_fails crun "${in_image[@]}" true
	expect_one_error "seccomp profile $profile: rule 1 (mkdir): SCMP_ACT_NOTIFY is not supported: nobody would answer"
	expect_match 'hint: tell the administrator to repair it; container.seccomp in brolga.toml names it'
	with_rules ''
	chmod o+w "$profile"
	run_fails crun "${in_image[@]}" true
	expect_match 'error: seccomp profile .*someone other than root could change it'
	rm "$profile"
	run_fails crun "${in_image[@]}" true
	expect_match 'error: seccomp profile .*no such file or directory'
	run sinfo -h -o %T
	refute_match 'drain'
}

@test "seccomp: names that nobody knows are ignored, and told with --container-verbose" {
	with_rules '{"names": ["nothing_such"], "action": "SCMP_ACT_ERRNO"}'
	run_ok crun "${in_image[@]}" --container-verbose true
	expect_match 'unknown to libseccomp and ignored: nothing_such'
}
