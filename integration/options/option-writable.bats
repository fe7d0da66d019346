#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# --container-writable and --container-readonly

load ../lib/helpers
load ../lib/images

setup() {
	mark_logs
	in_image=(--container-image="$BROLGA_TEST_IMAGE")
}

writable() { as_user env "${with_env[@]}" srun "${in_image[@]}" "$@" sh -c ': >/tmp/x' 2>/dev/null; }

@test "writable: the user writes where the image's permissions allow it" {
	run crun "${in_image[@]}" --container-writable sh -c 'echo hello >/tmp/x && cat /tmp/x; touch /usr/x; rm /usr/bin/ls; echo >>/etc/debian_version; stat -c %U /tmp/x'
	expect_line hello
	expect_line "$BROLGA_TEST_USER"
	expect_match "touch: cannot touch '/usr/x': Permission denied"
	expect_match "rm: cannot remove '/usr/bin/ls': Permission denied"
	expect_match '/etc/debian_version: Permission denied'
}

@test "writable: what is written is the node's and the step's, and nobody else's" {
	run_ok as_user salloc --quiet -N2 --ntasks-per-node=2 sh -c "
		srun ${in_image[*]} --container-writable -N2 --ntasks-per-node=2 sh -c '
			[ \$SLURM_LOCALID != 0 ] || echo \$SLURMD_NODENAME >/tmp/brolga-\$SLURMD_NODENAME
			until [ -s /tmp/brolga-\$SLURMD_NODENAME ]; do sleep 0.05; done
			ls /tmp'
		srun ${in_image[*]} --container-writable -N2 -n2 sh -c 'echo next: \$(ls /tmp)'"
	[[ $(grep -E '^brolga' <<<"$output" | sort | uniq -c | tr -s ' ') == $' 2 brolga-n1\n 2 brolga-n2' ]] || fail "$output"
	[[ $(grep -cx 'next:' <<<"$output") == 2 ]] || fail "$output"
	run_fails ls -d /tmp/brolga-n1
	expect_no_leftovers
}

@test "writable: files of the image can be replaced by their owner" {
	new_image
	chmod 0777 "$image/etc"
	echo old >"$image/etc/config"
	chmod 0666 "$image/etc/config"
	push_image writable-own:1
	run_ok crun --container-image="$ref" --container-writable sh -c 'cat /etc/config; echo new >/etc/config; cat /etc/config'
	[[ $output == $'old\nnew' ]]
	run_ok crun --container-image="$ref" sh -c 'cat /etc/config'
	[[ $output == old ]]
}

@test "readonly: writing fails everywhere but in what is mounted and in shared memory" {
	run crun "${in_image[@]}" --container-readonly sh -c '
		touch /tmp/x; touch /opt/work/x; mkdir /run/x
		: >/dev/null && : >"$HOME/readonly-test" && : >/dev/shm/brolga-readonly && echo others work
		rm -f "$HOME/readonly-test" /dev/shm/brolga-readonly'
	for path in /tmp/x /opt/work/x /run/x; do
		expect_match "cannot .* .?$path.?: Read-only file system"
	done
	expect_line 'others work'
}

@test "readonly: mount points that the image lacks are made nevertheless" {
	run_ok crun "${in_image[@]}" --container-readonly --container-mounts=/etc/hostname:/not/there sh -c 'cat /not/there; cd "$HOME"'
	[[ $output == "$(</etc/hostname)" ]]
	run_ok crun --container-image="$BROLGA_TEST_SMALL_IMAGE" --container-readonly /hello
}

@test "writable: flag, variable and site configuration, in this order" {
	writable
	site_config $'[container]\nwritable = false'
	run_fails writable
	for yes in 1 true YES; do
		given BROLGA_CONTAINER_WRITABLE="$yes"
		writable
	done
	run_fails writable --container-readonly
	for no in 0 false No; do
		given BROLGA_CONTAINER_WRITABLE="$no"
		run_fails writable
	done
	writable --container-writable
}

@test "writable: the site limits how much" {
	site_config $'[container]\ntmpfs_size = "2m"'
	run crun "${in_image[@]}" sh -c 'head -c 1000000 /dev/zero >/tmp/a && echo first && head -c 2000000 /dev/zero >/tmp/b'
	((status != 0))
	expect_line first
	expect_match 'No space left on device'
}

@test "writable: contradictions and wrong values are refused before anything is submitted" {
	refused '--container-readonly contradicts --container-writable: give one of them' "${in_image[@]}" --container-writable --container-readonly
	refused '--container-readonly contradicts --container-writable: give one of them' "${in_image[@]}" --container-readonly --container-writable
	given BROLGA_CONTAINER_WRITABLE=maybe
	refused 'BROLGA_CONTAINER_WRITABLE=maybe: want 1 or 0' "${in_image[@]}"
	run_fails crun "${in_image[@]}" --container-writable=1 true
	expect_match "option '--container-writable' doesn't allow an argument"
}
