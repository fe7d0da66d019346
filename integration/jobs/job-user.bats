#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
#
# Who runs the job, and where.

load ../lib/helpers
load ../lib/images

in_image=(--container-image="$BROLGA_TEST_IMAGE")

many=brolgamany

@test "groups: a user of many has all of them, by name and number" {
	local groups='' i
	for i in $(seq 40); do
		groupadd -f "brolgamany$i"
		groups+=,brolgamany$i
	done
	useradd --create-home --groups "${groups#,}" "$many"
	user_home=$(getent passwd "$many" | cut -d: -f6) BROLGA_TEST_USER=$many \
		crun "${in_image[@]}" sh -c 'id; touch made; stat -c %U made' >"$BATS_TEST_TMPDIR/out" 2>&1 || true
	want=$(id "$many")
	userdel --remove "$many" 2>/dev/null
	for i in $(seq 40); do groupdel "brolgamany$i"; done
	output=$(<"$BATS_TEST_TMPDIR/out")
	expect_line "$want"
	expect_line "$many"
}

@test "root: its jobs are refused unless the site allows them, and have no capability then" {
	cd /
	run_fails srun "${in_image[@]}" true
	expect_one_error 'user root may not run containers on this cluster'
	site_config $'[container]\nallow_root = true\nmount_home = false'
	run_ok timeout 60 srun "${in_image[@]}" sh -c 'id -u; grep -E "^Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs" /proc/self/status; mount -t tmpfs x /mnt || echo no mount'
	expect_line 0
	expect_line 'no mount'
	(($(grep -cE '^Cap(Prm|Eff|Bnd|Amb):[[:space:]]0+$' <<<"$output") == 4)) || fail "$output"
	expect_match '^NoNewPrivs:[[:space:]]1$'
}

@test "directory: one that only the host has is no error, and files that srun writes are there" {
	local dir=$BROLGA_CLUSTER_DIR/host-only
	install -d -o "$BROLGA_TEST_USER" "$dir"
	run_ok crun --chdir="$dir" --output="$dir/step.out" --no-container-mount-home "${in_image[@]}" sh -c "pwd; ls -d $dir 2>&1 || true"
	run cat "$dir/step.out"
	expect_line /opt/work # the image's
	expect_match "cannot access '$dir'"
	run_ok batch --chdir="$dir" --output=job.out "${in_image[@]}" --wrap pwd
	run cat "$dir/job.out"
	[[ $output == /opt/work ]] || fail "$output"
}

@test "directory: --chdir counts where the container has it" {
	run_ok crun --chdir="$user_home" "${in_image[@]}" pwd
	[[ $output == "$user_home" ]] || fail "$output"
}

@test "mpi: a program of the image runs with pmi2, and alone without" {
	run_ok crun -N2 -n4 --mpi=pmi2 "${in_image[@]}" mpi_hello
	(($(grep -c '^rank [0-3] of 4 .* sum 6$' <<<"$output") == 4)) || fail "$output"
	run_ok crun -n2 --mpi=none "${in_image[@]}" sh -c 'env | grep -c ^PMI || true'
	[[ $output == $'0\n0' ]] || fail "$output"
}
