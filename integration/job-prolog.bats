#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Scripts that Slurm runs in a task before its program: they are in the container,
# too, so it has to show them.

load helpers
load images

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

@test "task prolog: the site's works when its configuration mounts it" {
	local script=$BROLGA_CLUSTER_DIR/etc/task-prolog.sh
	prolog site >"$script"
	chmod 0755 "$script"
	cp "$SLURM_CONF" "$BATS_TEST_TMPDIR/slurm.conf"
	printf 'TaskProlog=%s\n' "$script" >>"$SLURM_CONF"
	scontrol reconfigure
	site_config "[container]
mounts = [\"$script:$script:ro\"]"
	run crun "${in_image[@]}" sh -c 'echo "<$FROM_PROLOG>"'
	cp "$BATS_TEST_TMPDIR/slurm.conf" "$SLURM_CONF"
	scontrol reconfigure
	((status == 0)) || fail "$output"
	expect_line '<site>'
	expect_line 'prolog in <debian>'
	nodes_idle
}

@test "task epilog: it runs on the host, where the user's work is" {
	printf '#!/bin/sh\necho "<$BROLGA_IMAGE>" >epilog.out\n' | as_user tee epilog.sh >/dev/null
	as_user chmod +x epilog.sh
	run_ok crun --task-epilog="$user_home/epilog.sh" "${in_image[@]}" true
	retry 10 test -e "$user_home/epilog.out"
	run_ok as_user cat epilog.out
	[[ $output == '<>' ]] || fail "$output"
}
